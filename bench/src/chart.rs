//! The report as a picture.

use std::fmt::Write as _;

use crate::cases;
use crate::report::{Figure, Report};
use crate::traffic::{self, Group, Traffic};

/// Sizes in pixels.
const WIDTH: f64 = 820.0;
const LABEL: f64 = 250.0;
const NUMBER: f64 = 130.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 40.0;
const FOOT: f64 = 30.0;

/// Colours that can be read on white and on black.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#7d8590}.t{font-weight:600}.n{font-size:12px}\
    .peer{fill:#8b949e}.ours{fill:#2f81f7}.spread{stroke:#d29922;stroke-width:2}";

/// A row of bars for each kind of UDP traffic: what a packet costs above the harness's own cost, with the spread of the
/// rounds. Nothing where nothing of that was measured.
#[must_use]
pub fn render(report: &Report) -> Option<String> {
    let mut body = String::new();
    let mut top = 0.0;
    for traffic in traffic::ALL.iter().filter(|traffic| traffic.group == Group::Packets) {
        top += section(&mut body, top, traffic, report);
    }
    if body.is_empty() {
        return None;
    }
    let environment = &report.environment;
    let foot = format!(
        "Above the harness's own cost. {}, Linux {}, {}",
        environment.machine, environment.kernel, environment.date
    );
    text(&mut body, "n", 0.0, top + FOOT / 2.0, "start", &foot);
    let height = top + FOOT;
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Cost of a forwarded packet\"><style>{STYLE}</style>\n{body}</svg>\n"
    ))
}

/// Draws one kind of traffic below `top` and returns how high that is.
fn section(body: &mut String, top: f64, traffic: &Traffic, report: &Report) -> f64 {
    let rows: Vec<(&cases::Case, &Figure, f64)> = cases::ALL
        .iter()
        .filter_map(|case| {
            let figure = report.figure(traffic.name, case.name)?;
            Some((case, figure, figure.above_floor?))
        })
        .collect();
    let longest = rows.iter().map(|(_, figure, above)| above + figure.spread.p90 - figure.spread.median);
    let longest = longest.fold(0.0, f64::max);
    let Some((_, first, _)) = rows.first().filter(|_| longest > 0.0) else { return 0.0 };
    text(body, "t", 0.0, top + HEAD / 2.0, "start", &format!("{}, {}", traffic.title, first.unit));
    let scale = (WIDTH - LABEL - NUMBER) / longest;
    for (index, (case, figure, above)) in rows.iter().enumerate() {
        let y = (index as f64).mul_add(ROW, top + HEAD);
        let middle = y + ROW / 2.0;
        let class = if case.is_ours() { "ours" } else { "peer" };
        let width = above.max(0.0) * scale;
        let end = |value: f64| (above + value - figure.spread.median).max(0.0).mul_add(scale, LABEL);
        let (from, to) = (end(figure.spread.p10), end(figure.spread.p90));
        text(body, "", LABEL - 8.0, middle, "end", case.title);
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <line class=\"spread\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>",
            y + 3.0,
            ROW - 6.0
        );
        let lost =
            if figure.is_doubtful() { format!(", {:.0}% lost", figure.lost * 100.0) } else { String::new() };
        let end = (LABEL + width).max(to);
        text(body, "n", end + 6.0, middle, "start", &format!("{above:.0}{lost}"));
    }
    (rows.len() as f64).mul_add(ROW, HEAD)
}

fn text(body: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
        y + 4.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_longest_bar_fits_and_others_are_in_proportion() {
        let report = report(&[("v4-60", "plain", &[101.0]), ("v4-60", "nft", &[401.0])]);
        let chart = render(&report).unwrap();
        assert!(chart.contains("width=\"440.0\"") && chart.contains("width=\"110.0\""), "{chart}");
        assert!(chart.contains(">400</text>"));
    }

    #[test]
    fn every_element_is_closed() {
        let chart = render(&report(&[("v6-60", "off", &[3.0, 9.0])])).unwrap();
        assert_eq!(chart.matches("<text").count(), chart.matches("</text>").count());
        assert!(chart.starts_with("<svg") && chart.ends_with("</svg>\n"));
        assert!(chart.contains("class=\"ours\""));
    }

    #[test]
    fn without_packets_there_is_no_chart() {
        assert_eq!(render(&report(&[("tcp-v4", "plain", &[3.0])])), None);
    }
}
