//! When quotas begin anew.

use jiff::ToSpan as _;
use jiff::civil::Date;

use crate::config::Period;

/// The first day of the period that a day is in.
pub(super) fn start(period: Period, day: Date) -> Date {
    match period {
        Period::Day => day,
        Period::Month { reset_day } => {
            let this = in_month(day, reset_day);
            if this <= day { this } else { in_month(day.first_of_month().saturating_sub(1.day()), reset_day) }
        }
    }
}

/// The first day of the period after the one that a day is in.
pub(super) fn next(period: Period, day: Date) -> Date {
    match period {
        Period::Day => day.saturating_add(1.day()),
        Period::Month { reset_day } => {
            let this = in_month(day, reset_day);
            if this > day { this } else { in_month(day.last_of_month().saturating_add(1.day()), reset_day) }
        }
    }
}

/// The day of that number in the month of another day; the last one, if it has fewer.
fn in_month(month: Date, number: u8) -> Date {
    let length = month.last_of_month().day();
    let number = i8::try_from(number).unwrap_or(i8::MAX).clamp(1, length);
    month.first_of_month().saturating_add((number - 1).days())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    const fn monthly(reset_day: u8) -> Period {
        Period::Month { reset_day }
    }

    #[test]
    fn a_month_begins_on_its_reset_day_and_short_months_on_their_last() {
        for (reset_day, day, first, then) in [
            (1, date(2026, 11, 23), date(2026, 11, 1), date(2026, 12, 1)),
            (1, date(2026, 12, 31), date(2026, 12, 1), date(2027, 1, 1)),
            (15, date(2026, 1, 14), date(2025, 12, 15), date(2026, 1, 15)),
            (15, date(2026, 1, 15), date(2026, 1, 15), date(2026, 2, 15)),
            (31, date(2026, 2, 27), date(2026, 1, 31), date(2026, 2, 28)),
            (31, date(2026, 2, 28), date(2026, 2, 28), date(2026, 3, 31)),
            (31, date(2028, 2, 28), date(2028, 1, 31), date(2028, 2, 29)),
            (30, date(2026, 3, 1), date(2026, 2, 28), date(2026, 3, 30)),
        ] {
            assert_eq!(
                (start(monthly(reset_day), day), next(monthly(reset_day), day)),
                (first, then),
                "{day}"
            );
        }
        let day = date(2026, 2, 28);
        assert_eq!((start(Period::Day, day), next(Period::Day, day)), (day, date(2026, 3, 1)));
    }

    proptest! {
        #[test]
        fn each_day_is_in_one_period_and_they_follow_each_other(
            year in 1970_i16..2200, ordinal in 0_i32..365, reset_day in 1_u8..=31,
        ) {
            let day = date(year, 1, 1).saturating_add(ordinal.days());
            for period in [monthly(reset_day), Period::Day] {
                let (first, then) = (start(period, day), next(period, day));
                prop_assert!(first <= day && day < then);
                prop_assert_eq!(start(period, then), then);
                prop_assert_eq!(next(period, first), then);
                prop_assert_eq!(start(period, then.saturating_sub(1.day())), first);
            }
        }
    }
}
