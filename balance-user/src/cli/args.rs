//! What can be asked on the command line.

mod change;
mod check;
mod doctor;
mod events;
mod explain;
mod flows;
mod flush;
mod import;
mod quota;
mod run;
mod status;
mod tests;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ColorChoice, Parser, Subcommand, ValueEnum};

pub use change::{IspName, SetWeight};
pub use check::Check;
pub use doctor::Doctor;
pub use events::Events;
pub use explain::Explain;
pub use flows::Flows;
pub use flush::Flush;
pub use import::Import;
pub use quota::Quota;
pub use run::Run;
pub use status::Status;

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

    /// Whether to use colours: `auto` is where standard output is a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,

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
  balance-user status --watch             the table, drawn anew every second
  balance-user status --check || mail -s 'not all ISPs are up' root < /dev/null
  balance-user status --json | jq '.isps[] | {name, state}'

Exit codes with --check:
  0  all ISPs are up
  1  some are down, or not known to be up
  2  none is up
  3  that cannot be told, as nothing balances here or this is not root")]
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
    /// Show which flow is on which ISP, why, and whether it goes fast
    ///
    /// All that conntrack knows with an ISP's mark, as it comes: with a million of them, too, the first are there at once. BYTES are those
    /// that went through the kernel: with a + behind there are more, which went fast. Works without the daemon too.
    #[command(after_help = "\
Examples:
  balance-user flows | less               all
  balance-user flows --isp CABLE | wc -l  how many CABLE has
  balance-user flows --source 192.168.1.10
  balance-user flows -f                   what begins, moves and ends from now on
  balance-user flows --json | jq -r 'select(.why.kind == \"inherited\") | .source'

WHY:
  bucket 1234              the flow's bucket is this ISP's
  rule 3: VIDEO, bucket 7  likewise, in the policy that a rule leads to
  stays; now ...           it would go elsewhere now, but flows do not move
  came in by it            somebody outside began it
  this machine's own       its socket, or the weighted default route, has chosen
  its prefix decides       IPv6, from a prefix of this ISP")]
    Flows(Flows),

    /// Watch ISPs, flows and hosts in the terminal, and change ISPs by a key
    ///
    /// Rates, shares against weights, round trips and losses, what goes fast, top flows and hosts, events. ? shows the keys; whatever
    /// changes something asks first. 80 columns and 24 lines are enough.
    #[command(after_help = "Example:\n  balance-user top")]
    Top,

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

    /// Find what is wrong with this machine, or may come to be, and what to do about it
    ///
    /// Looks at the kernel, its settings, conntrack, devices, gateways and MTUs, and at what others do: daemons, rules, routes, marks. Changes
    /// nothing. Works without the daemon, before anything is installed, and without root as far as possible.
    #[command(after_help = "\
Examples:
  balance-user doctor
  balance-user doctor --config new.toml
  balance-user doctor --json | jq -r '.[] | select(.severity == \"problem\") | .fix'

Exit codes:
  0  no problem; maybe warnings
  1  a problem")]
    Doctor(Doctor),

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
  balance-user top                        the same and more, live
  balance-user set-weight CABLE 3 --save  a bigger share for CABLE, for good
  balance-user down DSL                   DSL is not to be used
  balance-user auto DSL                   DSL is used when it works
  balance-user explain --help             by which ISP a flow goes, and why
  balance-user flows                      which flow is on which ISP, and why
  balance-user doctor                     what is wrong with this machine
  balance-user stop                       put everything back as it was
  balance-user import balance.conf        the config of Net::ISP::Balance as one for this
  Each command has more: balance-user set-weight --help

Exit codes:
  0  good
  1  failed, or `doctor` has found a problem
  2  bad usage or config; `status --check` has others

Files:
  /etc/balance/balance.toml               the config
  /run/balance/INSTANCE/control.sock      where the daemon listens
  /var/lib/balance/INSTANCE/events.jsonl  what has happened
  /sys/fs/bpf/balance/INSTANCE/           what balances on while the daemon is gone";
