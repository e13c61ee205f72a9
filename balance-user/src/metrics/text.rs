//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a metric; its samples follow.
    pub(super) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { text: &mut self.0, name }
    }

    /// All that was written.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// A metric that is being written.
pub(super) struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    /// A value, with the labels that tell it from the others of the metric.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (place, (label, content)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(content));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
        self
    }
}

fn escaped(content: &str) -> String {
    content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_its_help_its_type_and_its_samples() {
        let mut text = Text::default();
        text.metric("a_total", Kind::Counter, "What it is.")
            .sample(&[], u64::MAX)
            .sample(&[("b", "x"), ("c", "\"\\\n")], 2);
        text.metric("d", Kind::Gauge, "Other.").sample(&[], 0.25).sample(&[("e", "")], 1e-9);
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 18446744073709551615\n\
                        a_total{b=\"x\",c=\"\\\"\\\\\\n\"} 2\n# HELP d Other.\n# TYPE d gauge\nd 0.25\n\
                        d{e=\"\"} 0.000000001\n";
        assert_eq!(text.finish(), expected);
    }
}
