//! What many measurements of one thing come to.

use serde::{Deserialize, Serialize};

/// The middle of several measurements, and how far they are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// A tenth are below this.
    pub p10: f64,
    /// A tenth are above this.
    pub p90: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// That of these measurements; none without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            min: *sorted.first()?,
            p10: quantile(&sorted, 0.1)?,
            p90: quantile(&sorted, 0.9)?,
            count: sorted.len(),
        })
    }
}

/// The median alone.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// The value below which this part of the sorted values lies, between two of them where it falls between.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a list is small and not negative"
)]
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let position = part * (sorted.len().checked_sub(1)?) as f64;
    let below = *sorted.get(position.floor() as usize)?;
    let above = *sorted.get(position.ceil() as usize)?;
    Some((above - below).mul_add(position.fract(), below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_has_no_median() {
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn one_measurement_is_everything() {
        let one = Spread { median: 7.0, min: 7.0, p10: 7.0, p90: 7.0, count: 1 };
        assert_eq!(Spread::of(&[7.0]), Some(one));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn one_wild_measurement_moves_the_median_little() {
        let values: Vec<f64> = (1..=20).map(f64::from).chain([1e9]).collect();
        let spread = Spread::of(&values).unwrap();
        assert_eq!((spread.median, spread.min, spread.p10, spread.p90), (11.0, 1.0, 3.0, 19.0));
    }
}
