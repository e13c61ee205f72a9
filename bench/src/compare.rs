//! Two runs side by side.

use std::fmt::Write as _;

use crate::report::Report;

/// A figure counts as worse when its median is above the old one by more than this part of it, and also above nine of
/// ten of the old rounds.
const NOISE: f64 = 0.05;

/// How the figures of a run differ from those of an older one.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What both runs have measured.
    pub changes: Vec<Change>,
}

/// How one figure differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The name of the traffic.
    pub traffic: String,
    /// The name of the case.
    pub case: String,
    /// The old median.
    pub old: f64,
    /// The new one.
    pub new: f64,
    /// Whether it got worse by more than chance explains.
    pub is_worse: bool,
}

impl Comparison {
    /// Compares what both have measured.
    #[must_use]
    pub fn of(old: &Report, new: &Report) -> Self {
        let changes = new.figures.iter().filter_map(|figure| {
            let before = old.figure(&figure.traffic, &figure.case)?.spread;
            let now = figure.spread.median;
            Some(Change {
                traffic: figure.traffic.clone(),
                case: figure.case.clone(),
                old: before.median,
                new: now,
                is_worse: now > before.median * (1.0 + NOISE) && now > before.p90,
            })
        });
        Self { changes: changes.collect() }
    }

    /// Whether anything got worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.changes.iter().any(|change| change.is_worse)
    }

    /// As text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text =
            format!("\n{:<12} {:<12} {:>10} {:>10} {:>7}\n", "traffic", "case", "old", "new", "ratio");
        for change in &self.changes {
            let Change { traffic, case, old, new, is_worse } = change;
            let worse = if *is_worse { "  WORSE" } else { "" };
            // Writing to a string cannot fail.
            let _ =
                writeln!(text, "{traffic:<12} {case:<12} {old:>10.0} {new:>10.0} {:>7.2}{worse}", new / old);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    fn change(old: &[f64], new: &[f64]) -> Change {
        let (old, new) = (report(&[("v4-60", "nft", old)]), report(&[("v4-60", "nft", new)]));
        Comparison::of(&old, &new).changes.remove(0)
    }

    #[test]
    fn a_median_that_is_clearly_higher_is_worse() {
        assert!(change(&[100.0, 101.0, 102.0], &[119.0, 120.0, 121.0]).is_worse);
    }

    #[test]
    fn what_is_within_the_old_spread_or_a_little_is_not_worse() {
        assert!(!change(&[100.0, 101.0, 102.0], &[104.0]).is_worse, "a little");
        assert!(!change(&[100.0, 101.0, 180.0, 180.0, 100.0], &[119.0]).is_worse, "within the spread");
        assert!(!change(&[100.0], &[50.0]).is_worse, "better");
    }

    #[test]
    fn only_what_both_have_measured_is_compared() {
        let old = report(&[("v4-60", "nft", &[1.0])]);
        let new = report(&[("v4-60", "plain", &[1.0])]);
        let comparison = Comparison::of(&old, &new);
        assert!(comparison.changes.is_empty() && !comparison.is_worse());
    }
}
