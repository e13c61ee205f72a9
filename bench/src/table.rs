//! The report as text.

use std::fmt::Write as _;

use crate::cases::{self, Case};
use crate::report::{Figure, Missing, Report};
use crate::traffic::{self, Traffic};

/// The report as tables, one for each kind of traffic.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let environment = &report.environment;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}, Linux {}, commit {}, {}",
        environment.machine, environment.kernel, environment.commit, environment.date
    );
    for traffic in traffic::ALL {
        let rows: Vec<(&Case, &Figure)> = cases::ALL
            .iter()
            .filter_map(|case| Some((case, report.figure(traffic.name, case.name)?)))
            .collect();
        if let Some((_, first)) = rows.first() {
            text += &heading(&traffic, first);
            rows.iter().for_each(|(case, figure)| text += &row(case, figure, report));
        }
    }
    text += &not_measured(&report.missing);
    text
}

/// Each reason once, with all that it is the reason for.
fn not_measured(missing: &[Missing]) -> String {
    let mut reasons: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for one in missing {
        match reasons.iter_mut().find(|(case, reason, _)| *case == one.case && *reason == one.reason) {
            Some((_, _, traffics)) => traffics.push(&one.traffic),
            None => reasons.push((&one.case, &one.reason, vec![&one.traffic])),
        }
    }
    let lines = reasons.into_iter().map(|(case, reason, traffics)| {
        let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("  {case}, with {}: {}\n", traffics.join(", "), shortened(&line))
    });
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\nNot measured:\n{lines}") }
}

/// What fits into a few lines of a terminal: the end, where the cause is.
fn shortened(line: &str) -> String {
    const MOST: usize = 300;
    let too_many = line.chars().count().saturating_sub(MOST);
    if too_many == 0 {
        return line.to_owned();
    }
    "... ".chars().chain(line.chars().skip(too_many)).collect()
}

fn heading(traffic: &Traffic, first: &Figure) -> String {
    format!(
        "\n{} ({}), {}, {} rounds\n  {:<32} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7}\n",
        traffic.title,
        traffic.name,
        first.unit,
        first.spread.count,
        "",
        "median",
        "min",
        "p10",
        "p90",
        "-floor",
        "x plain",
        "lost"
    )
}

fn row(case: &Case, figure: &Figure, report: &Report) -> String {
    let spread = &figure.spread;
    let number = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let above = figure.above_floor.map_or_else(|| "-".to_owned(), number);
    let plain = report.figure(&figure.traffic, "plain").and_then(|plain| plain.above_floor);
    let ratio = figure.above_floor.zip(plain).map(|(this, plain)| format!("{:.2}", this / plain));
    let doubtful = if figure.is_doubtful() { "  LOST TOO MUCH" } else { "" };
    format!(
        "  {:<32} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>6.2}%{doubtful}\n",
        case.title,
        number(spread.median),
        number(spread.min),
        number(spread.p10),
        number(spread.p90),
        above,
        ratio.unwrap_or_else(|| "-".to_owned()),
        figure.lost * 100.0
    )
}
