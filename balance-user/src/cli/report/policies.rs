//! The policies, and which ISPs have their flows.

use serde::{Deserialize, Serialize};

use super::super::figures::percent;
use super::rounded;

/// So long is a line, unless a single word is longer.
const WIDTH: usize = 80;
const GAP: &str = "  ";

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name; that of an ISP stands for this ISP alone.
    pub name: String,
    /// What stays together, as in the config.
    pub sticky: String,
    /// What becomes of flows when none of its ISPs works, as in the config.
    pub last_resort: String,
    /// The ISPs that have flows of it now, in the order of the config.
    pub isps: Vec<Share>,
}

/// An ISP's part of the new flows of a policy as of now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The ISP's name.
    pub name: String,
    /// Of IPv4, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub ipv4: f64,
    /// Of IPv6, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub ipv6: f64,
}

/// The policies as a table; nothing where there is only the default one, and nothing to say of it.
pub(super) fn render(policies: &[Policy]) -> Vec<String> {
    let is_plain = |policy: &Policy| policy.sticky == "flow" && policy.last_resort == "main";
    if policies.len() < 2 && policies.iter().all(is_plain) {
        return Vec::new();
    }
    let has = |family: fn(&Share) -> f64| {
        policies.iter().flat_map(|policy| &policy.isps).any(|isp| family(isp) > 0.0)
    };
    let families = [has(|isp| isp.ipv4), has(|isp| isp.ipv6)];
    let header = ["POLICY", "STICKY", "LAST RESORT"];
    let cells = policies.iter().map(|policy| [&*policy.name, &*policy.sticky, &*policy.last_resort]);
    let rows: Vec<_> = std::iter::once(header).chain(cells).collect();
    let widths = [0, 1, 2].map(|column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let shares = policies.iter().map(|policy| shares(&policy.isps, families));
    let shares = std::iter::once(vec!["SHARE".to_owned()]).chain(shares);
    rows.iter()
        .zip(shares)
        .flat_map(|(row, shares)| {
            let cells: String = row
                .iter()
                .zip(widths)
                .flat_map(|(cell, width)| [format!("{cell:width$}"), GAP.to_owned()])
                .collect();
            wrapped(&cells, &shares, WIDTH)
        })
        .collect()
}

/// The words that say which ISPs have how much: of IPv4, and of IPv6 if that is different and there is any.
fn shares(isps: &[Share], [has_v4, has_v6]: [bool; 2]) -> Vec<String> {
    let v4 = of_family(isps, |isp| isp.ipv4);
    let v6 = of_family(isps, |isp| isp.ipv6);
    match (has_v4, has_v6) {
        (false, true) => v6,
        (true, true) if v4 != v6 => {
            let v4 = v4.iter().enumerate().map(|(place, share)| {
                if place + 1 == v4.len() { format!("{share};") } else { share.clone() }
            });
            let v6 = v6
                .iter()
                .enumerate()
                .map(|(place, share)| if place == 0 { format!("IPv6: {share}") } else { share.clone() });
            v4.chain(v6).collect()
        }
        _ => v4,
    }
}

fn of_family(isps: &[Share], share: fn(&Share) -> f64) -> Vec<String> {
    let used: Vec<_> = isps.iter().filter(|isp| share(isp) > 0.0).collect();
    if used.is_empty() {
        return vec!["none".to_owned()];
    }
    let last = used.len() - 1;
    let cell = |(place, isp): (usize, &&Share)| {
        let comma = if place == last { "" } else { "," };
        format!("{} {}{comma}", isp.name, percent(100.0 * share(isp)))
    };
    used.iter().enumerate().map(cell).collect()
}

/// Lines that begin with `first`, or as much space, and go on with as many of the words as there is room for.
pub(in crate::cli) fn wrapped(first: &str, words: &[String], width: usize) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut is_new = true;
    for word in words {
        let Some(line) = lines.last_mut() else { break };
        if is_new {
            line.push_str(word);
            is_new = false;
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{}{word}", " ".repeat(first.chars().count())));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, sticky: &str, last_resort: &str, isps: &[(&str, f64, f64)]) -> Policy {
        let share = |&(name, ipv4, ipv6): &(&str, f64, f64)| Share { name: name.to_owned(), ipv4, ipv6 };
        Policy {
            name: name.to_owned(),
            sticky: sticky.to_owned(),
            last_resort: last_resort.to_owned(),
            isps: isps.iter().map(share).collect(),
        }
    }

    #[test]
    fn each_policy_says_who_has_its_flows_and_ipv6_only_where_that_is_another() {
        let policies = [
            policy("default", "flow", "main", &[("CABLE", 0.75, 0.75), ("DSL", 0.25, 0.25)]),
            policy("CALLS", "source", "unreachable", &[("DSL", 1.0, 0.0), ("LTE", 0.0, 1.0)]),
            policy("VIDEO", "source-destination", "drop", &[("CABLE", 0.999, 0.0), ("DSL", 0.001, 0.0)]),
            policy("LTE", "flow", "main", &[]),
        ];
        let expected = "\
POLICY   STICKY              LAST RESORT  SHARE
default  flow                main         CABLE 75%, DSL 25%
CALLS    source              unreachable  DSL 100%; IPv6: LTE 100%
VIDEO    source-destination  drop         CABLE 100%, DSL <1%; IPv6: none
LTE      flow                main         none";
        assert_eq!(render(&policies).join("\n"), expected);
    }

    #[test]
    fn the_default_policy_alone_is_not_worth_a_table_unless_it_is_special() {
        let plain = policy("default", "flow", "main", &[("CABLE", 1.0, 1.0)]);
        assert!(render(&[]).is_empty());
        assert!(render(std::slice::from_ref(&plain)).is_empty());
        let special = [("sticky", "source", "main"), ("refusing", "flow", "drop")];
        for (what, sticky, last_resort) in special {
            assert_eq!(render(&[policy("default", sticky, last_resort, &[])]).len(), 2, "{what}");
        }
        assert_eq!(render(&[plain.clone(), policy("DSL", "flow", "main", &[])]).len(), 3);
    }

    #[test]
    fn where_there_is_one_family_only_that_one_is_told() {
        let told = |ipv4, ipv6| {
            let isps = [("CABLE", ipv4, ipv6)];
            render(&[policy("default", "source", "main", &isps), policy("X", "flow", "main", &[])]).join("\n")
        };
        for text in [told(1.0, 0.0), told(0.0, 1.0)] {
            assert!(
                text.contains("CABLE 100%\n") && text.ends_with("none") && !text.contains("IPv"),
                "{text}"
            );
        }
        assert!(told(0.0, 0.0).contains("none\n"));
    }

    #[test]
    fn many_isps_take_several_lines_of_eighty_columns() {
        let names: Vec<String> = (1..=20).map(|number| format!("ISP-{number}")).collect();
        let isps: Vec<(&str, f64, f64)> = names.iter().map(|name| (name.as_str(), 0.05, 0.05)).collect();
        let lines =
            render(&[policy("default", "flow", "main", &[]), policy("EVERYTHING", "flow", "main", &isps)]);
        assert!(lines.len() > 4 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let column = lines[0].find("SHARE").unwrap();
        assert!(lines[3..].iter().all(|line| line.find("ISP-") == Some(column)), "{lines:#?}");
        assert!(lines.last().unwrap().ends_with("ISP-20 5%"), "{lines:#?}");
    }
}
