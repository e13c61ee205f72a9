//! Wrong configs, wrong command lines, and `--dry-run`: nothing is changed.
#![cfg(test)]

#[path = "../../balance-user/tests/config/malformed/mod.rs"]
mod malformed;

use std::fs;

use balance_lab::checks::{balancing, changes, field};
use balance_lab::{Dump, Lab, Output, binary, ready};
use serde_json::Value;

const SAMPLE: &str = include_str!("../../dist/balance.toml");

/// What is wrong with the answer to a wrong config, if anything.
fn fault(output: &Output, path: &str, line: usize, fragment: &str) -> Option<String> {
    let Output { status, stdout, stderr } = output;
    let lines: Vec<&str> = stderr.split('\n').collect();
    let [first, _, shown, caret, ""] = lines.as_slice() else {
        return Some(format!("not four lines:\n{stderr}"));
    };
    let place = first.strip_prefix(&format!("error: {path}:{line}:"));
    let Some((column, message)) = place.and_then(|rest| rest.split_once(": ")) else {
        return Some(format!("no place in line {line}:\n{stderr}"));
    };
    let underlined =
        caret.split_once(" | ").is_some_and(|(_, rest)| rest.trim_start().trim_matches('^').is_empty());
    let good = status.code() == Some(2)
        && stdout.is_empty()
        && column.parse::<usize>().is_ok_and(|column| column > 0)
        && message.contains(fragment)
        && shown.starts_with(&format!("{line} | "))
        && underlined
        && caret.contains('^');
    (!good).then(|| format!("{status}, {stdout:?}, wants {fragment:?}:\n{stderr}"))
}

#[test]
fn a_malformed_config_is_refused_with_its_place_and_changes_nothing() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    let mut failures = Vec::new();
    let cases = malformed::cases();
    assert!(cases.len() >= 100);
    for (name, text, line, fragment) in cases {
        let path = lab.write_config(text).unwrap();
        let path = path.to_str().unwrap();
        for arguments in [&["check", path] as &[_], &["run", "--config", path]] {
            let output = lab.balance(arguments).unwrap();
            failures.extend(
                fault(&output, path, line, fragment).map(|fault| format!("{name}: {arguments:?}: {fault}")),
            );
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
}

#[test]
fn a_file_that_is_no_config_is_refused() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.router()
        .sh("printf '[[isp]]\\nname = \"\\377\"\\n' > /run/latin1.toml; mkdir /run/folder.toml")
        .unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for (path, fragment) in [
        ("/run/none.toml", "there is no such file"),
        ("/run/folder.toml", "cannot be read"),
        ("/run/latin1.toml", "not UTF-8"),
        ("", "a value is required"),
    ] {
        for arguments in
            [&["check", path] as &[_], &["run", "--config", path], &["run", "-d", "--config", path]]
        {
            let Output { status, stdout, stderr } = lab.balance(arguments).unwrap();
            let good = status.code() == Some(2) && stdout.is_empty() && stderr.starts_with("error: ");
            assert!(good && stderr.contains(fragment), "{arguments:?}: {status}\n{stderr}");
        }
    }
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
}

/// Wrong command lines, `F` being a good config and `BAD` a malformed one, with a part of the complaint.
const COMMAND_LINES: &[(&str, &str)] = &[
    ("set-weight", "<NAME> <N>"),
    ("set-weight CABLE", "<N>"),
    ("set-weight CABLE 0", "0 is not in 1..=1000"),
    ("set-weight CABLE 1001", "1001 is not in 1..=1000"),
    ("set-weight CABLE 99999999999999999999", "too large"),
    ("set-weight CABLE -1", "'-1'"),
    ("set-weight CABLE 1.5", "invalid"),
    ("set-weight CABLE 0x10", "invalid"),
    ("set-weight CABLE many", "'many'"),
    ("set-weight CABLE 3 4", "'4'"),
    ("set-weight 3 CABLE", "'CABLE'"),
    ("set-weight NONE 3", "there is no ISP NONE; there are CABLE, DSL"),
    ("set-weight NONE 3 --save --config F", "there is no ISP named NONE"),
    ("set-weight CABLE 3 --config", "--config"),
    ("set-weight CABLE 5 --save --config BAD", "BAD:1:"),
    ("set-weight CABLE 5 --save --config /run/none.toml", "there is no such file"),
    ("set-weight CABLE 5 --save --config OTHER", "there is no ISP named CABLE"),
    ("set-weight CABLE 5 --keep", "--keep"),
    ("up", "<NAME>"),
    ("up NONE", "there is no ISP NONE"),
    ("up CABLE DSL", "'DSL'"),
    ("down", "<NAME>"),
    ("down NONE", "there is no ISP NONE"),
    ("down --all", "--all"),
    ("auto", "<NAME>"),
    ("auto NONE", "there is no ISP NONE"),
    ("flush NONE", "there is no ISP NONE; there are CABLE, DSL"),
    ("flush CABLE DSL", "'DSL'"),
    ("flush --all", "--all"),
    ("stop now", "'now'"),
    ("stop --force", "--force"),
    ("check a b", "'b'"),
    ("check --config F", "--config"),
    ("check BAD", "BAD:1:"),
    ("status -s --json", "cannot be used with"),
    ("status --jsn", "--json"),
    ("status CABLE", "'CABLE'"),
    ("statsu", "status"),
    ("help", "'help'"),
    ("--instance", "--instance"),
    ("--instance ../x stop", "a-z"),
    ("--instance Main stop", "a-z"),
    ("--instance a/b status", "a-z"),
    ("--instance= stop", "value"),
    ("--instance aaaaaaaaaabbbbbbbbbbccccccccccddd stop", "1 to 32"),
    ("--log-level loud stop", "loud"),
    ("--verbose stop", "--verbose"),
    ("run --config", "--config"),
    ("run --config F NONE", "there is no ISP NONE"),
    ("run --config F CABLE NONE", "there is no ISP NONE"),
    ("run --config F -d NONE", "there is no ISP NONE"),
    ("run --config F --instance second NONE", "there is no ISP NONE"),
    ("run --config BAD CABLE", "BAD:1:"),
    ("run --config BAD --dry-run", "BAD:1:"),
    ("run --dry", "--dry-run"),
    ("run -x", "'-x'"),
    ("run --config F --config F", "--config"),
    ("run F", "there is no such file"),
];

#[test]
fn a_wrong_command_line_is_refused_in_a_line_and_changes_nothing() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    let file = |name: &str| format!("/run/{name}.toml");
    let write = |name: &str, text: &str| {
        let path = file(name);
        lab.router().run(|| fs::write(path, text)).unwrap();
    };
    write("F", &lab.config());
    write("BAD", "[[isp]\n");
    write("OTHER", "[[isp]]\nname = \"LTE\"\ndevice = \"lte0\"\n");
    let before = (Dump::take(lab.router()).unwrap(), told(&lab));
    let mut failures = Vec::new();
    for (line, fragment) in COMMAND_LINES {
        let arguments: Vec<String> = line
            .split(' ')
            .map(|word| if ["F", "BAD", "OTHER"].contains(&word) { file(word) } else { word.to_owned() })
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Output { status, stdout, stderr } = lab.balance(&arguments).unwrap();
        let one_error = stderr.starts_with("error: ") && stderr.matches("error: ").count() == 1;
        let is_short = stderr.ends_with('\n') && matches!(stderr.lines().count(), 1 | 4);
        let fragment = fragment.replace("BAD", &file("BAD"));
        if status.code() != Some(2)
            || !stdout.is_empty()
            || !one_error
            || !is_short
            || !stderr.contains(&fragment)
        {
            failures.push(format!("{line}: {status}, {stdout:?}, wants {fragment:?}:\n{stderr}"));
        }
        if told(&lab) != before.1 {
            failures.push(format!("{line}: changed something: {:?}", told(&lab)));
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(changes(&lab, &before.0), Vec::<String>::new());
    assert_eq!(lab.router().run(|| fs::read_to_string("/run/F.toml")).unwrap(), lab.config());
    assert_eq!(lab.status().unwrap()["daemon"]["pid"], daemon.pid());
}

/// What the operator can change of the ISPs, as `status` tells it.
fn told(lab: &Lab) -> Vec<Vec<Value>> {
    let status = lab.status().unwrap();
    ["weight", "forced", "share"].map(|name| field(&status, name).into_values().collect()).into()
}

#[test]
fn without_arguments_the_help_is_shown_as_an_error() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let output = lab.balance(&[]).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(2), ""));
    assert!(output.stderr.contains("Usage: balance-user"), "{}", output.stderr);
}

/// Runs the program as nobody, without any capability.
fn as_nobody(lab: &Lab, arguments: &str) -> anyhow::Result<String> {
    // Where the program was built nobody may be allowed to look. A process of its own copies it: a file that this one has open for
    // writing, children of other tests would have open too, and then it cannot be run.
    let program = binary()?;
    lab.router().sh(&format!("install -m 755 {} /run/balance-user", program.display()))?;
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all";
    let output = lab.router().sh(&format!("{nobody} /run/balance-user {arguments}"))?;
    lab.router().sh("rm /run/balance-user")?;
    Ok(output)
}

/// A lab with the devices of the sample config, which is what is in `/run/balance.toml`.
fn sample_lab() -> Lab {
    let lab = Lab::new().unwrap();
    for (device, name) in [("cable0", "eth0"), ("dsl0", "ppp0"), ("lan0", "eth1")] {
        lab.router().ip(&[format!("link set {device} name {name}")]).unwrap();
    }
    lab.write_config(SAMPLE).unwrap();
    lab
}

#[test]
fn a_dry_run_needs_no_root_and_changes_nothing() {
    if !ready() {
        return;
    }
    let lab = sample_lab();
    let before = Dump::take(lab.router()).unwrap();
    let plan = as_nobody(&lab, "run --dry-run --config /run/balance.toml").unwrap();
    for line in [
        "sysctl -w net/ipv4/conf/eth1/forwarding=1",
        "ip -4 route add default table 1001 proto 201 via 100.64.1.1 dev eth0",
        "ip -6 rule add priority 10102 from all fwmark 0x200/0x3f00 lookup 1002 protocol 201",
        "nft -f - <<'EOF'",
        "# eBPF programs: steer the flows from eth1",
        "# IPv4 flows to CABLE: 75.0 %",
    ] {
        assert!(plan.lines().any(|printed| printed == line), "no {line:?} in:\n{plan}");
    }
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
    // Neither does it without the devices.
    let bare = Lab::new().unwrap();
    bare.write_config(SAMPLE).unwrap();
    let plan = as_nobody(&bare, "run -d --config /run/balance.toml").unwrap();
    assert!(plan.contains("eth0") && plan.contains("ppp0"), "{plan}");
}

#[test]
fn the_commands_of_a_dry_run_do_what_the_daemon_does() {
    if !ready() {
        return;
    }
    let lab = sample_lab();
    let before = Dump::take(lab.router()).unwrap();
    let plan = as_nobody(&lab, "run -d --config /run/balance.toml").unwrap();
    lab.router().sh(&plan).unwrap();
    let by_hand = Dump::take(lab.router()).unwrap();
    assert_ne!(before.diff(&by_hand), Vec::<String>::new());

    let lab = sample_lab();
    // Forced up, as its targets are none of the lab's.
    let daemon = lab.start(&["CABLE", "DSL"]).unwrap();
    let mut diff = by_hand.diff(&Dump::take(lab.router()).unwrap());
    // Addresses made of the devices' random ones, and what no command of a shell makes.
    diff.retain(|line| {
        let (_, what) = line.split_at(2);
        let other =
            ["links", "addresses", "qdiscs", "tcx", "tc filters", "/sys/fs/bpf", "/run/", "/etc/iproute2"];
        !line.contains("fe80::") && !other.iter().any(|section| what.starts_with(section))
    });
    assert_eq!(diff, Vec::<String>::new(), "{plan}\n{}", daemon.stderr());
    lab.balance_ok(&["stop"]).unwrap();
}
