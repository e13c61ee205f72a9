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
}

impl Figure {
    /// Whether so much was lost that it is doubtful what was measured.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.lost > TOLERABLE_LOSS
    }
}
