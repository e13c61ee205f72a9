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
            for (case, figure) in rows {
                text += &row(case, figure, report);
            }
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
        if first.gigabits().is_some() { "Gbit/s" } else { "lost" }
    )
}

fn row(case: &Case, figure: &Figure, report: &Report) -> String {
    let spread = &figure.spread;
    let number = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let dash = || "-".to_owned();
    let ratio = report.ratio(figure, "plain").map_or_else(dash, |ratio| format!("{ratio:.2}"));
    let last = match figure.gigabits() {
        Some(gigabits) => format!("{gigabits:>7.2}"),
        None => format!("{:>6.2}%", figure.lost * 100.0),
    };
    let doubtful = if figure.is_doubtful() { "  LOST TOO MUCH" } else { "" };
    format!(
        "  {:<32} {:>8} {:>8} {:>8} {:>8} {:>9} {ratio:>8} {last}{doubtful}\n",
        case.title,
        number(spread.median),
        number(spread.min),
        number(spread.p10),
        number(spread.p90),
        figure.above_floor.map_or_else(dash, number),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_table_has_medians_and_ratios_above_the_floor() {
        let text = render(&report(&[("v4-60", "plain", &[101.0]), ("v4-60", "nft", &[301.0])]));
        let row = text.lines().find(|line| line.contains("numgen")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[4..], ["301", "301", "301", "301", "300", "3.00", "0.00%"]);
    }

    #[test]
    fn losses_are_pointed_out() {
        let mut report = report(&[("v4-60", "plain", &[101.0])]);
        report.figures[0].lost = 0.02;
        assert!(render(&report).contains("LOST TOO MUCH"));
    }

    #[test]
    fn a_reason_is_told_once_with_all_its_traffic() {
        let one = |traffic: &str| Missing {
            traffic: traffic.to_owned(),
            case: "iptables".to_owned(),
            reason: "no such\nprogram".to_owned(),
        };
        assert_eq!(
            not_measured(&[one("v4-60"), one("new-v4")]),
            "\nNot measured:\n  iptables, with v4-60, new-v4: no such program\n"
        );
        assert_eq!(not_measured(&[]), "");
    }

    #[test]
    fn of_a_long_reason_the_end_is_told() {
        let text = shortened(&("x".repeat(400) + "cause"));
        assert!(text.starts_with("... x") && text.ends_with("cause"));
    }
}
