//! The keys of the config, as the parser itself tells them: given a key that no table has, it says which ones the table
//! can have. So no list here has to be kept right.

use std::collections::BTreeMap;
use std::path::Path;

use balance_user::config::Config;

use super::manual_page;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");
const SAMPLE: &str = include_str!("../../../dist/balance.toml");

/// Other names of keys, for those who come from elsewhere. The reference tells them, the sample does not.
const OTHER_NAMES: [&str; 8] = [
    "flap_window",
    "interval_ms",
    "timeout_ms",
    "max_successive_pkts_lost",
    "min_successive_pkts_rcvd",
    "max_packet_loss",
    "min_packet_loss",
    "long_down_time",
];

/// Whether a table is one of a list, and what it must have before its other keys are looked at. Needed only where there is
/// something: what is missing makes the tests fail.
const NEEDED: [(&str, bool, &str); 9] = [
    ("isp", true, "name = \"A\", device = \"a0\""),
    ("lan", true, "name = \"L\", device = \"l0\""),
    ("policy", true, "name = \"P\""),
    ("rule", true, "to = \"A\""),
    ("forward", true, "port = 1, to = \"192.0.2.1\""),
    ("route", true, "to = \"192.0.2.0/24\", device = \"r0\""),
    ("mail", false, "to = \"you@example.org\""),
    ("webhook", false, "url = \"http://192.0.2.1/\""),
    ("targets", true, ""),
];

/// Of each table, by its path, such as `isp.monitor`: its keys.
fn keys() -> BTreeMap<String, Vec<String>> {
    let mut tables = BTreeMap::new();
    let mut paths = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let Some(keys) = keys_of(&path) else { continue };
        paths.extend(keys.iter().map(|key| [path.as_slice(), std::slice::from_ref(key)].concat()));
        tables.insert(path.join("."), keys);
    }
    tables
}

/// The keys of the table at the path, or of the tables in the list there; none if there can be no table.
fn keys_of(path: &[String]) -> Option<Vec<String>> {
    [false, true].into_iter().find_map(|is_list| {
        let error = Config::parse(&with_stranger(path, is_list), Path::new("balance.toml")).unwrap_err();
        let message = &error.fault().unwrap().message;
        assert!(!message.contains(" is missing: add"), "{path:?} cannot be tried, see NEEDED: {message}");
        let (_, keys) = message.strip_prefix("unknown key `stranger`: ")?.split_once(" can have ")?;
        Some(keys.split(", ").map(str::to_owned).collect())
    })
}

/// A config that has an unknown key in the table at that path, and what else it must have.
fn with_stranger(path: &[String], is_list: bool) -> String {
    let mut value = "{ stranger = 1 }".to_owned();
    for (depth, key) in path.iter().enumerate().rev() {
        let innermost = depth + 1 == path.len();
        if (innermost && is_list)
            || (!innermost && NEEDED.iter().any(|(table, is_list, _)| *is_list && table == key))
        {
            value = format!("[{value}]");
        }
        if depth == 0 {
            value = format!("{key} = {value}\n");
        } else {
            let needed =
                NEEDED.iter().find(|(table, _, needed)| *table == path[depth - 1] && !needed.is_empty());
            let needed = needed.map_or_else(String::new, |(_, _, needed)| format!("{needed}, "));
            value = format!("{{ {needed}{key} = {value} }}");
        }
    }
    if path.is_empty() {
        value = "stranger = 1\n".to_owned();
    }
    if path.first().is_some_and(|key| key == "isp") {
        value
    } else {
        format!("{value}\n[[isp]]\nname = \"A\"\ndevice = \"a0\"\n")
    }
}

/// The sections of the reference, by the table that they are about.
fn sections() -> BTreeMap<String, &'static str> {
    let sections = REFERENCE.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    let table = |heading: &str| {
        let name = heading.split('`').nth(1).unwrap_or_default();
        name.trim_matches(['[', ']']).to_owned()
    };
    let mut found = BTreeMap::new();
    for (heading, text) in sections {
        match table(heading) {
            name if !name.is_empty() => {
                assert!(found.insert(name, text).is_none(), "{heading} is there twice");
            }
            _ if heading == "Top level" => assert!(found.insert(String::new(), text).is_none()),
            _ => {}
        }
    }
    found
}

/// The keys that a section has in the first column of its tables.
fn rows(section: &str) -> Vec<&str> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    cells.flat_map(|(cell, _)| cell.trim_end_matches('`').split("`, `")).collect()
}

/// A table that is written in one line, as an item of a list.
fn is_inline(path: &str) -> bool {
    ["isp.targets", "policy.isps"].contains(&path)
}

#[test]
fn the_parser_tells_all_of_its_keys() {
    let keys = keys();
    for (table, key) in [
        ("", "mode"),
        ("isp", "weight"),
        ("isp.monitor", "interval"),
        ("isp.targets", "status"),
        ("policy", "sticky"),
        ("policy.isps", "tier"),
        ("rule", "to"),
        ("firewall", "groups"),
        ("mark", "mask"),
        ("webhook", "headers"),
    ] {
        assert!(
            keys.get(table).is_some_and(|keys| keys.iter().any(|known| known == key)),
            "{table} {key}: {keys:?}"
        );
    }
}

#[test]
fn every_key_is_in_the_reference_and_the_manual_page_and_nothing_else_is() {
    let (keys, sections) = (keys(), sections());
    let page = manual_page("balance.toml.5");
    for (path, keys) in &keys {
        if is_inline(path) {
            for key in keys {
                let shown = [format!("{{ {key} = "), format!(", {key} = ")];
                assert!(
                    shown.iter().any(|form| REFERENCE.contains(form)),
                    "{path}: no {key} in the reference"
                );
                assert!(shown.iter().any(|form| page.contains(form)), "{path}: no {key} in the manual page");
            }
            continue;
        }
        let Some(section) = sections.get(path) else {
            // The keys of a table within a table, told with the one that they are of.
            let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
            panic!("docs/configuration.md has no section about [{path}] ({key} of [{parent}])");
        };
        if path == "isp.monitor" {
            assert_eq!(keys, &keys_of(&["monitor".to_owned()]).unwrap());
            continue;
        }
        let rows = rows(section);
        let is_table = |key: &str| sections.contains_key([path, ".", key].concat().trim_start_matches('.'));
        for key in keys.iter().filter(|key| !is_table(key)) {
            let is_told = if OTHER_NAMES.contains(&key.as_str()) {
                section.contains(&format!("`{key}`"))
            } else {
                rows.contains(&key.as_str())
            };
            assert!(is_told, "[{path}]: no `{key}` in docs/configuration.md");
            assert!(page.contains(key.as_str()), "[{path}]: no {key} in the manual page");
        }
        for row in rows {
            assert!(keys.iter().any(|key| key == row), "[{path}]: there is no key `{row}`");
        }
    }
    for table in sections.keys() {
        assert!(keys.contains_key(table), "there is no [{table}]");
    }
}

#[test]
fn every_key_is_in_the_sample() {
    for (path, keys) in keys() {
        if is_inline(&path) || path == "isp.monitor" || path == "policy" || path == "rule" {
            continue;
        }
        for key in keys.iter().filter(|key| !OTHER_NAMES.contains(&key.as_str())) {
            let forms =
                [format!("\n{key} = "), format!("# {key} = "), format!("[{key}]"), format!("[{path}.{key}]")];
            assert!(
                forms.iter().any(|form| SAMPLE.contains(form)),
                "[{path}]: no {key} in dist/balance.toml"
            );
        }
    }
}
