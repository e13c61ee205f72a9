#![cfg(test)]

use clap::CommandFactory;

use super::*;
use crate::config::DEFAULT_PATH;

fn parsed(line: &str) -> Result<Cli, Farewell> {
    parse(["balance-user"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn the_definition_has_no_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_names_and_flags_in_any_order() {
    let cli = parsed("run CABLE -d --config /x DSL --instance lab2 --log-level debug").unwrap();
    let names = vec!["CABLE".to_owned(), "DSL".to_owned()];
    let run = Run { config: "/x".into(), dry_run: true, names };
    assert_eq!(
        cli,
        Cli {
            instance: "lab2".to_owned(),
            log_level: LogLevel::Debug,
            color: ColorChoice::Auto,
            command: Command::Run(run)
        }
    );
}

#[test]
fn defaults_are_those_of_the_system() {
    let cli = parsed("run").unwrap();
    assert_eq!((cli.instance.as_str(), cli.log_level), ("main", LogLevel::Info));
    let config = DEFAULT_PATH.into();
    assert_eq!(cli.command, Command::Run(Run { config, dry_run: false, names: Vec::new() }));
    assert_eq!(parsed("check").unwrap().command, Command::Check(Check { config: DEFAULT_PATH.into() }));
}

#[test]
fn every_command_of_the_help_is_understood() {
    for line in [
        "run --dry-run",
        "status",
        "status -s",
        "status --json",
        "status --check",
        "status --watch",
        "status -w 0.5 -s",
        "--color never status",
        "status --color always",
        "--instance b status --short",
        "set-weight CABLE 1",
        "set-weight CABLE 1000 --save --config f",
        "up CABLE",
        "down CABLE",
        "auto CABLE",
        "events",
        "events -f --json -n 5 --isp CABLE",
        "events --follow",
        "doctor",
        "doctor --json --config f",
        "flows",
        "flows --isp CABLE --source 192.168.1.0/24 --json",
        "flows -f --source fd00::1",
        "top",
        "quota LTE --set 12GB",
        "quota LTE --set 0.5TiB",
        "flush",
        "flush CABLE",
        "explain --from 192.168.1.2 --to 1.1.1.1 --proto udp --sport 1 --dport 53 --dscp ef --lan HOME",
        "explain --local --to 2001:db8::1 --dport 53 --json",
        "check f",
        "import",
        "import -",
        "import f",
        "stop",
    ] {
        assert!(parsed(line).is_ok(), "{line}");
    }
}

#[test]
fn wrong_use_is_one_clear_line_and_exit_code_2() {
    for (line, fragment) in [
        ("quota LTE", "--set"),
        ("quota LTE --set 12", "must be a number with kB, MB, GB"),
        ("quota --set 12GB", "<NAME>"),
        ("set-weight", "<NAME> <N>"),
        ("set-weight CABLE", "<N>"),
        ("set-weight CABLE 0", "0 is not in 1..=1000"),
        ("set-weight CABLE 1001", "1001 is not in 1..=1000"),
        ("set-weight CABLE -1", "'-1'"),
        ("set-weight CABLE 1.5", "invalid"),
        ("set-weight CABLE many", "'many'"),
        ("set-weight CABLE 3 4", "'4'"),
        ("up", "<NAME>"),
        ("down", "<NAME>"),
        ("auto", "<NAME>"),
        ("up CABLE DSL", "'DSL'"),
        ("flush CABLE DSL", "'DSL'"),
        ("flush --all", "--all"),
        ("flows --source here", "an address or a prefix"),
        ("flows CABLE", "'CABLE'"),
        ("events -n many", "many"),
        ("events CABLE", "'CABLE'"),
        ("stop now", "'now'"),
        ("top CABLE", "'CABLE'"),
        ("explain --from 192.168.1.2", "--to"),
        ("explain --to 1.1.1.1", "--from"),
        ("explain --from here --to 1.1.1.1", "'here'"),
        ("explain --local --lan HOME --to 1.1.1.1", "cannot be used with"),
        ("explain --local --to 1.1.1.1 --dport 0", "0 is not in 1..=65535"),
        ("explain --local --to 1.1.1.1 --sport 65536", "65536 is not in 1..=65535"),
        ("check a b", "'b'"),
        ("import a b", "'b'"),
        ("import --toml", "--toml"),
        ("status -s --json", "cannot be used with"),
        ("status --check --json", "cannot be used with"),
        ("status --watch --json", "cannot be used with"),
        ("status --watch 0", "0.1 to 3600 seconds"),
        ("status --watch often", "0.1 to 3600 seconds"),
        ("status --color red", "red"),
        ("status --jsn", "--json"),
        ("status CABLE", "'CABLE'"),
        ("statsu", "status"),
        ("--instance", "--instance"),
        ("--instance ../x stop", "a-z"),
        ("--instance Main stop", "a-z"),
        ("--instance= stop", "value"),
        ("--log-level loud stop", "loud"),
        ("run --config", "--config"),
        ("run --dry", "--dry-run"),
        ("run -x", "'-x'"),
        ("help", "'help'"),
    ] {
        let farewell = parsed(line).expect_err(line);
        assert_eq!(farewell.exit_code, 2, "{line}");
        assert!(farewell.text.starts_with("error: "), "{line}: {}", farewell.text);
        assert_eq!(farewell.text.matches('\n').count(), 1, "{line}: {}", farewell.text);
        assert!(farewell.text.ends_with("see balance-user --help\n"), "{line}: {}", farewell.text);
        assert!(farewell.text.contains(fragment), "{line}: {} lacks {fragment}", farewell.text);
    }
}

#[test]
fn help_teaches_commands_exit_codes_and_files() {
    for line in ["--help", "-h"] {
        let help = parsed(line).unwrap_err();
        assert_eq!(help.exit_code, 0);
        for part in ["Usage: balance-user", "run", "set-weight", "Examples:", "Exit codes:", "balance.toml"] {
            assert!(help.text.contains(part), "{line} lacks {part}:\n{}", help.text);
        }
    }
    for command in Cli::command().get_subcommands() {
        let help = parsed(&format!("{} --help", command.get_name())).unwrap_err();
        assert_eq!(help.exit_code, 0);
        assert!(help.text.contains("Example"), "{}", help.text);
    }
}

#[test]
fn nothing_to_do_is_answered_with_the_help_but_is_an_error() {
    let farewell = parsed("").unwrap_err();
    assert_eq!(farewell.exit_code, 2);
    assert!(farewell.text.contains("Usage:"));
}
