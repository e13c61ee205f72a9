//! Numbers as people read them.

use std::time::Duration;

/// An age in its two biggest units.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Whole percents; but what is not nothing does not look like nothing.
pub(crate) fn percent(percent: f64) -> String {
    if percent > 0.0 && percent < 0.5 { "<1%".to_owned() } else { format!("{percent:.0}%") }
}

/// Whole milliseconds, with a decimal where it says something.
pub(crate) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 9.95 => format!("{ms:.1}").trim_end_matches(".0").to_owned(),
        Some(ms) => format!("{ms:.0}"),
    }
}

/// An amount in thousands, millions and so on: at most four characters up to a thousand billions.
pub(crate) fn amount(number: u64) -> String {
    let mut value = number as f64;
    if number < 1000 {
        return number.to_string();
    }
    for unit in ["k", "M", "G", "T"] {
        value /= 1000.0;
        if value < 9.95 {
            return format!("{value:.1}{unit}");
        }
        if value < 999.5 {
            return format!("{value:.0}{unit}");
        }
    }
    format!("{value:.0}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        const DAY: u64 = 86_400;
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3900, "1h05m"),
            (DAY, "1d00h"),
            (400 * DAY, "400d00h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn numbers_are_as_exact_as_they_need_to_be() {
        for (ms, text) in
            [(0.04, "0"), (0.36, "0.4"), (2.0, "2"), (9.94, "9.9"), (9.96, "10"), (180.4, "180")]
        {
            assert_eq!(milliseconds(Some(ms)), text);
        }
        for (value, text) in [(0.0, "0%"), (0.2, "<1%"), (33.333, "33%"), (100.0, "100%")] {
            assert_eq!(percent(value), text);
        }
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (9_949, "9.9k"),
            (9_950, "10k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (1_234_567_890, "1.2G"),
            (5_000_000_000_000_000, "5000T"),
        ] {
            assert_eq!(amount(number), text);
        }
    }
}
