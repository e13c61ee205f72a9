//! What was measured: the same for the table, the chart, the file and a later comparison.

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::statistics::Spread;

/// More than this part of the packets lost makes a figure doubtful.
pub const TOLERABLE_LOSS: f64 = 0.01;

/// All that was measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where and when.
    pub environment: Environment,
    /// The figures, by traffic and then by case.
    pub figures: Vec<Figure>,
    /// What could not be measured.
    pub missing: Vec<Missing>,
}

/// What one kind of traffic costs in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The name of the traffic.
    pub traffic: String,
    /// The name of the case.
    pub case: String,
    /// What the figures are of, such as `ns/packet`.
    pub unit: String,
    /// The rounds.
    pub spread: Spread,
    /// The median without what the harness itself costs; none where that was not measured.
    pub above_floor: Option<f64>,
    /// The part of what was sent that did not arrive.
    pub lost: f64,
}

/// A case that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// The name of the traffic.
    pub traffic: String,
    /// The name of the case.
    pub case: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The figure of a case with some traffic.
    #[must_use]
    pub fn figure(&self, traffic: &str, case: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.traffic == traffic && figure.case == case)
    }

    /// How many times as much it is as another case with the same traffic: above the floor, where there is one.
    #[must_use]
    pub fn ratio(&self, figure: &Figure, other: &str) -> Option<f64> {
        let other = self.figure(&figure.traffic, other)?;
        match (figure.above_floor, other.above_floor) {
            (Some(this), Some(other)) => Some(this / other),
            (None, None) => Some(figure.spread.median / other.spread.median),
            _ => None,
        }
    }
}

impl Figure {
    /// What one core carries, in Gbit/s, where the figure is of bytes.
    #[must_use]
    pub fn gigabits(&self) -> Option<f64> {
        // Bits of a kilobyte by nanoseconds are gigabits by seconds.
        (self.unit == "ns/kB").then(|| 8000.0 / self.spread.median)
    }

    /// Whether so much was lost that it is doubtful what was measured.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.lost > TOLERABLE_LOSS
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with these rounds, by traffic and case.
    pub(crate) fn report(rounds: &[(&str, &str, &[f64])]) -> Report {
        let figures = rounds.iter().map(|(traffic, case, rounds)| Figure {
            traffic: (*traffic).to_owned(),
            case: (*case).to_owned(),
            unit: "ns/packet".to_owned(),
            spread: Spread::of(rounds).unwrap(),
            above_floor: Spread::of(rounds).map(|spread| spread.median - 1.0),
            lost: 0.0,
        });
        let environment = Environment {
            date: "2025-01-31T12:00:00Z".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            machine: "a machine".to_owned(),
            core: 1,
            tools: Vec::new(),
        };
        Report { environment, figures: figures.collect(), missing: Vec::new() }
    }

    #[test]
    fn a_report_survives_the_file() {
        let report = report(&[("v4-60", "nft", &[1.0, 2.5])]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
