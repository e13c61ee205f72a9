//! What holds for any config of Net::ISP::Balance.

use std::path::Path;

use balance_user::config::Config;
use balance_user::import::is_nib;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{ROUTER, import};

fn space() -> impl Strategy<Value = &'static str> {
    select(vec![" ", "\t", "   ", "\t \t"])
}

/// What may follow in a line.
fn behind() -> impl Strategy<Value = &'static str> {
    select(vec!["", " ", "\t", " # isp [x] = \"y\"", "\t#"])
}

fn ping() -> impl Strategy<Value = String> {
    let words = ["default", "www.example.org", "host-1", "9.9.9.9", "2001:db8::1"];
    prop_oneof![select(words.to_vec()).prop_map(str::to_owned), "[1-9]\\.[0-9]\\.[1-9]\\.[1-9]"]
}

/// The columns behind the role, of which the last may be missing.
fn columns() -> impl Strategy<Value = Vec<String>> {
    let weight = prop_oneof![Just("default".to_owned()), (0..=1000u16).prop_map(|n| n.to_string())];
    let gateway = select(vec!["default".to_owned(), "192.0.2.1".to_owned(), "fe80::1".to_owned()]);
    (ping(), weight, gateway, 0..=3usize)
        .prop_map(|(ping, weight, gateway, count)| [ping, weight, gateway].into_iter().take(count).collect())
}

fn number(name: &'static str, range: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = String> {
    (range, select(vec!["=", " =", "= ", "\t=\t"])).prop_map(move |(n, equals)| format!("{name}{equals}{n}"))
}

fn setting() -> impl Strategy<Value = String> {
    prop_oneof![
        number("interval_ms", 10..=100_000),
        number("timeout_ms", 10..=60_000),
        number("max_successive_pkts_lost", 1..=1000),
        number("min_successive_pkts_rcvd", 1..=800),
        number("max_packet_loss", 0..=100),
        number("status", 0..=2),
        "(warn_email|notifyscript|queue|sourceip) ?= ?[^\\pC#]{0,20}",
        select(vec!["mode=balanced", "mode = failover", "mode=Failover"]).prop_map(str::to_owned),
        select(vec!["", "  ", "# mode=x", "\t# A a isp"]).prop_map(str::to_owned),
    ]
}

prop_compose! {
    /// A config that Net::ISP::Balance takes, with the number of its ISPs and that of its LANs.
    fn config()(
        devices in btree_map("[a-z]{1,10}[0-9]{0,3}", (any::<bool>(), columns()), 1..12),
        prefix in "[A-Za-z][A-Za-z0-9_-]{0,20}",
        groups in vec(vec(any::<prop::sample::Index>(), 1..5), 0..4),
        settings in vec(setting(), 0..10),
        space in space(),
        behind in behind(),
        newline in select(vec!["\n", "\r\n"]),
        bom in option::of(Just("\u{feff}")),
        options_first in any::<bool>(),
    ) -> (String, usize, usize) {
        let devices: Vec<_> = devices.into_iter().filter(|(device, _)| device != "lo").collect();
        let mut rows = vec![format!("{prefix}{space}first{space}isp{behind}")];
        let mut names = vec![":lan".to_owned(), ":isp".to_owned(), prefix.clone()];
        let mut isps = 1;
        for (index, (device, (is_isp, columns))) in devices.iter().enumerate() {
            let name = format!("{prefix}{index}");
            let role = if *is_isp { "isp" } else { "lan" };
            isps += usize::from(*is_isp);
            let columns = columns.iter().flat_map(|column| [space, column]).collect::<String>();
            rows.push(format!("{name}{space}{device}0x{space}{role}{columns}{behind}"));
            names.push(name);
        }
        let lans = rows.len() - isps;
        let mut options = settings;
        for group in groups {
            let group: Vec<_> = group.iter().map(|index| index.get(&names).as_str()).collect();
            options.push(format!("forwarding_group={}{behind}", group.join(space)));
        }
        let lines = if options_first { [options, rows] } else { [rows, options] }.concat();
        (format!("{}{}", bom.unwrap_or_default(), lines.join(newline)), isps, lans)
    }
}

proptest! {
    #[test]
    fn whatever_is_taken_becomes_a_config_with_all_isps_and_lans((text, isps, lans) in config()) {
        prop_assert!(is_nib(&text));
        let toml = import(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!is_nib(&toml));
        let config = Config::parse(&toml, Path::new("f"))
            .map_err(|error| TestCaseError::fail(format!("{error}\n{toml}")))?;
        prop_assert_eq!((config.isps.len(), config.lans.len()), (isps, lans));
        prop_assert_eq!(Config::parse(&text, Path::new("f")).ok(), Some(config));
    }

    #[test]
    fn every_line_is_in_the_toml_or_an_error(line in "[a-zA-Z0-9_=.: \t#-]{1,40}") {
        let said = line.split('#').next().unwrap_or_default();
        let text = format!("{ROUTER}{line}\n");
        if !said.trim().is_empty() && let Ok(toml) = import(&text) {
            prop_assert_ne!(toml, import(ROUTER).unwrap(), "{}", line);
        }
    }

    #[test]
    fn no_mutation_makes_it_panic_point_nowhere_or_print_what_is_no_config(
        at in any::<prop::sample::Index>(),
        length in 0..6usize,
        with in "(\\PC|[\n\r\t\u{0}#=:. ]|default|isp|lan){0,6}",
    ) {
        let mut text = ROUTER.to_owned();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        text.replace_range(start..end, &with);
        match import(&text) {
            Ok(toml) => prop_assert!(Config::parse(&toml, Path::new("f")).is_ok(), "{}", toml),
            Err(error) => {
                let fault = error.fault().unwrap();
                let line = text.split('\n').nth(fault.line - 1).unwrap();
                prop_assert!((1..=line.chars().count() + 1).contains(&fault.column), "{}", error);
            }
        }
    }
}
