//! What can be asked on the command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::events::Events;
use crate::amount::parse_size;
use crate::config::{DEFAULT_PATH, WEIGHTS};
use crate::import;

/// Balances the flows of a router, or of a single host, over several internet connections (ISPs). When an ISP fails,
/// new flows use the others.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "balance-user",
    bin_name = "balance-user",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// Which balance is meant, where several run side by side: 1 to 32 of a-z, 0-9, `-` and `_`
    #[arg(long, global = true, value_name = "NAME", default_value = "main", value_parser = instance)]
    pub instance: String,

    /// How much to tell on standard error
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Balance: watch the ISPs and steer the flows, until stopped
    ///
    /// Runs in the foreground, as systemd likes it. Ctrl-C ends the watching but leaves the balancing in the kernel
    /// as it is: `stop` removes that too. SIGHUP reads the config again.
    #[command(after_help = "\
Examples:
  balance-user run                        with the config in /etc/balance/balance.toml
  balance-user run --dry-run              print what would be done; needs no root
  balance-user run CABLE                  use CABLE, and none of the other ISPs")]
    Run(Run),

    /// Show the ISPs: state, share, quality, flows
    ///
    /// Works without the daemon too, from what is in the kernel; what only the daemon knows is then `-` (null in JSON).
    #[command(after_help = "\
Examples:
  balance-user status                     a table
  balance-user status -s                  one line for each ISP: its name and up, suspect, down or unknown
  balance-user status --json | jq '.isps[] | {name, state}'")]
    Status(Status),

    /// Show what has happened: each change of an ISP's state with its evidence and its consequence
    ///
    /// Works without the daemon too. The latest few hundred events are kept, also over restarts.
    #[command(after_help = "\
Examples:
  balance-user events                     all that are kept, oldest first
  balance-user events -n 5 --isp CABLE    the latest five of CABLE
  balance-user events -f                  the latest ten, then whatever happens
  balance-user events --json | jq 'select(.state == \"down\") | .evidence'")]
    Events(Events),

    /// Change an ISP's share of the new flows
    ///
    /// Live flows stay where they are. Without --save, the change lasts until the config is read again.
    #[command(after_help = "\
Examples:
  balance-user set-weight CABLE 3         three times what an ISP of weight 1 gets
  balance-user set-weight CABLE 3 --save  and keep it, comments in the config and all")]
    SetWeight(SetWeight),

    /// Use an ISP whatever its probes say
    #[command(after_help = "Example:\n  balance-user up CABLE")]
    Up(IspName),

    /// Give an ISP no new flows, whatever its probes say; those that it has stay until they end
    #[command(after_help = "Example:\n  balance-user down DSL")]
    Down(IspName),

    /// Let an ISP's probes decide again, after `up` or `down`
    #[command(after_help = "Example:\n  balance-user auto DSL")]
    Auto(IspName),

    /// Say what an ISP has used of its quota, if its provider has counted something else
    ///
    /// What comes from then on is added. `status` shows what was counted.
    #[command(after_help = "Example:\n  balance-user quota LTE --set 12GB")]
    Quota(Quota),

    /// Drop what the fast path has learned of the flows of an ISP, or of all
    ///
    /// No flow breaks: its next packet goes through the kernel, and by what the kernel does with it the flow is learned
    /// anew. Changed routes, firewall rules and so on are noticed within a lease anyway; this is for whoever cannot wait.
    #[command(after_help = "\
Examples:
  balance-user flush                      all of it
  balance-user flush CABLE                that of CABLE; the flows of other ISPs stay fast")]
    Flush(Flush),

    /// Tell by which ISP a flow goes, and why: rule, policy, bucket, mark, route, NAT
    ///
    /// Runs the steering program on such a packet, without sending one, counting one or remembering the flow. Works without
    /// the daemon too; what only the daemon knows is then left out (null in JSON).
    #[command(after_help = "\
Examples:
  balance-user explain --from 192.168.1.10 --to 1.1.1.1 --proto udp --dport 53
  balance-user explain --from fd00:1::10 --to 2606:4700:4700::1111 --dport 443 --sport 40000
  balance-user explain --local --to 9.9.9.9 --dport 853     what this machine itself sends
  balance-user explain --from 192.168.1.10 --to 1.1.1.1 --proto icmp --lan HOME --json")]
    Explain(Explain),

    /// Check a config and say what is wrong with it, if anything; changes nothing and needs no root
    #[command(after_help = "Example:\n  balance-user check balance.toml && systemctl reload balance")]
    Check(Check),

    /// Make a config of one for Net::ISP::Balance (balance.conf), with comments, on standard output
    ///
    /// Changes nothing and needs no root. `run` and `check` also take such a file as it is.
    #[command(after_help = "\
Examples:
  balance-user import > balance.toml && balance-user check balance.toml
  ssh router cat /etc/network/balance.conf | balance-user import -")]
    Import(Import),

    /// Stop balancing and put everything back: routes, rules, nft table, sysctls, programs and maps
    #[command(after_help = "Example:\n  balance-user stop")]
    Stop,
}

/// What `run` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// The config
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Print what would be done, as commands, and do nothing; needs no root
    #[arg(short, long)]
    pub dry_run: bool,

    /// Use these ISPs and no others, whatever their probes say
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// What `status` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// One line for each ISP: name and state
    #[arg(short, long, conflicts_with = "json")]
    pub short: bool,

    /// Everything, for programs
    #[arg(long)]
    pub json: bool,
}

/// What `set-weight` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SetWeight {
    /// The ISP
    pub name: String,

    /// Its weight against the weights of the others
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(WEIGHTS.0)..=i64::from(WEIGHTS.1)))]
    pub weight: u16,

    /// Also write it to the config
    #[arg(long)]
    pub save: bool,

    /// The config to write it to
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Which ISP is meant.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct IspName {
    /// The ISP
    pub name: String,
}

/// What `quota` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Quota {
    /// The ISP
    pub name: String,

    /// What it has used in the present period: a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub set: u64,
}

/// What `flush` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Flush {
    /// The ISP; all, and what goes between LANs, if none is named
    pub name: Option<String>,
}

/// What `explain` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Explain {
    /// Who begins the flow; with --local, the address that the socket is bound to, if any
    #[arg(long, value_name = "ADDRESS", required_unless_present = "local")]
    pub from: Option<IpAddr>,

    /// To whom
    #[arg(long, value_name = "ADDRESS")]
    pub to: IpAddr,

    /// The protocol: tcp, udp, sctp, icmp, gre, ipsec or a number
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    pub proto: String,

    /// The source port of tcp, udp and sctp; any, if it is left out
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub sport: Option<u16>,

    /// The destination port of tcp, udp and sctp
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub dport: Option<u16>,

    /// How the packet is marked for priority: 0 to 63, or a name such as ef
    #[arg(long, value_name = "DSCP", default_value = "0")]
    pub dscp: String,

    /// The LAN that the flow comes from, by its name or its device; if it is left out, the one that the source is reached by
    #[arg(long, value_name = "LAN", conflicts_with = "local")]
    pub lan: Option<String>,

    /// It is this machine itself that begins the flow
    #[arg(long)]
    pub local: bool,

    /// Everything, for programs
    #[arg(long)]
    pub json: bool,
}

/// What `check` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// The config
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// What `import` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Import {
    /// The config of Net::ISP::Balance; `-` is standard input
    #[arg(value_name = "FILE", default_value = import::DEFAULT_PATH)]
    pub file: PathBuf,
}

/// How much to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happened.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

/// The command line leaves nothing to do but to print a text and exit: an answer to `--help`, or what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The text, with a newline at its end.
    pub text: String,
    /// 0 if the text was asked for and belongs on standard output, 2 if it is an error for standard error.
    pub exit_code: u8,
}

/// Understands a command line, the program's name included.
pub fn parse<T>(arguments: impl IntoIterator<Item = T>) -> Result<Cli, Farewell>
where
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| farewell(&error))
}

/// Wrong use gets one line, not a page: the page is one `--help` away.
fn farewell(error: &clap::Error) -> Farewell {
    let text = error.render().to_string();
    let exit_code = u8::try_from(error.exit_code()).unwrap_or(2);
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) || exit_code == 0 {
        return Farewell { text, exit_code };
    }
    let mut paragraphs = text.split("\n\n");
    let mut line = one_line(paragraphs.next().unwrap_or_default());
    if let Some(tip) = paragraphs.map(one_line).find(|paragraph| paragraph.starts_with("tip: ")) {
        line = format!("{line} ({tip})");
    }
    Farewell { text: format!("{line}; see balance-user --help\n"), exit_code }
}

fn one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of an instance, which becomes part of paths and of the nft table's name.
fn instance(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    if fits { Ok(text.to_owned()) } else { Err("use 1 to 32 of a-z, 0-9, `-` and `_`".to_owned()) }
}

const AFTER_HELP: &str = "\
Examples:
  balance-user check && balance-user run  check the config, then balance
  balance-user status                     the ISPs in a table
  balance-user set-weight CABLE 3 --save  a bigger share for CABLE, for good
  balance-user down DSL                   DSL is not to be used
  balance-user auto DSL                   DSL is used when it works
  balance-user explain --help             by which ISP a flow goes, and why
  balance-user stop                       put everything back as it was
  balance-user import balance.conf        the config of Net::ISP::Balance as one for this
  Each command has more: balance-user set-weight --help

Exit codes:
  0  good
  1  failed
  2  bad usage or config

Files:
  /etc/balance/balance.toml               the config
  /run/balance/INSTANCE/control.sock      where the daemon listens
  /var/lib/balance/INSTANCE/events.jsonl  what has happened
  /sys/fs/bpf/balance/INSTANCE/           what balances on while the daemon is gone";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
            Cli { instance: "lab2".to_owned(), log_level: LogLevel::Debug, command: Command::Run(run) }
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
            "--instance b status --short",
            "set-weight CABLE 1",
            "set-weight CABLE 1000 --save --config f",
            "up CABLE",
            "down CABLE",
            "auto CABLE",
            "events",
            "events -f --json -n 5 --isp CABLE",
            "events --follow",
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
            ("quota LTE", "--set"),
            ("quota LTE --set 12", "must be a number with kB, MB, GB"),
            ("quota --set 12GB", "<NAME>"),
            ("flush CABLE DSL", "'DSL'"),
            ("flush --all", "--all"),
            ("events -n many", "many"),
            ("events CABLE", "'CABLE'"),
            ("stop now", "'now'"),
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
            for part in
                ["Usage: balance-user", "run", "set-weight", "Examples:", "Exit codes:", "balance.toml"]
            {
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
}
