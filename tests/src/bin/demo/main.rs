//! The demo: a router with two ISPs, the real daemon and real flows, from the first packet to `stop`. `cargo xtask
//! demo` builds and runs it.
//!
//! Whatever it claims, it checks; when something is not as it should be, its exit code is not 0.

mod screen;
mod traffic;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use balance_lab::{Daemon, Dump, Family, Flow, Isp, Lab, Transport, wait_until};

use screen::{Screen, Share, percent};
use traffic::LiveFlows;

/// How many flows of each of the four kinds show the split: enough for chance to stay far below [`TOLERANCE`].
const NEW_FLOWS: usize = 2000;
/// How many flows of each kind live through everything.
const LIVE_FLOWS: usize = 100;
/// By how many percent of all flows an ISP's share may miss what its weight says.
const TOLERANCE: f64 = 3.0;
/// How long new flows may be without a way when an ISP dies silently under traffic.
const LONGEST_OUTAGE: Duration = Duration::from_secs(1);
/// How long an ISP may take to be up.
const UP_TIMEOUT: Duration = Duration::from_secs(15);

const PICTURE: &str = "
                                 +-- CABLE --+
LAN host ----- router -----------+           +---- internet host
               balance-user run  +-- DSL ----+
";

fn main() -> ExitCode {
    let mut screen = Screen::new();
    match run(&mut screen) {
        Ok(()) if screen.broken() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        // Nobody is there to be told.
        Err(_) if screen.is_closed() => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(screen: &mut Screen) -> anyhow::Result<()> {
    let start = Instant::now();
    screen.heading("A router with two ISPs, in network namespaces of its own")?;
    let lab = Lab::new().context("cannot make the network of the demo")?;
    screen.say(PICTURE)?;
    screen.say("\nFive machines, each a namespace; this computer's own network is not touched.")?;
    wait_for_lines(&lab)?;
    let before = Dump::take(lab.router())?;

    let mut log = Log { daemon: start_daemon(screen, &lab)?, shown: 0 };
    screen.heading(&format!("{} new flows from the LAN: TCP and UDP, IPv4 and IPv6", 4 * NEW_FLOWS))?;
    show_split(screen, &lab, 3, 1)?;
    log.skip();

    fail_over(screen, &lab, &mut log)?;
    come_back(screen, &lab, &mut log)?;
    change_weight(screen, &lab)?;

    screen.heading("What the operator sees")?;
    screen.command("balance-user status")?;
    screen.say(&balance(&lab, &["status"])?)?;

    stop(screen, &lab, log.daemon, &before)?;
    drop(lab);
    let seconds = start.elapsed().as_secs_f64();
    let claims = screen.claims();
    match screen.broken() {
        0 => screen.line(format_args!(
            "\nAll {claims} claims hold. The network of the demo is gone. {seconds:.0} s"
        ))?,
        broken => screen.line(format_args!("\n{broken} of {claims} claims FAILED. {seconds:.0} s"))?,
    }
    Ok(())
}

/// Waits until every line of a new network carries IPv6, which the kernel may take a second for.
fn wait_for_lines(lab: &Lab) -> anyhow::Result<()> {
    let carries = |isp: &Isp| {
        let flow = Flow::open(isp.host(), Transport::Udp, Family::V6, Duration::from_millis(100));
        flow.and_then(|mut flow| flow.ask()).is_ok()
    };
    wait_until(UP_TIMEOUT, "the lines of the ISPs", || lab.isps().iter().all(carries))
}

fn start_daemon(screen: &mut Screen, lab: &Lab) -> anyhow::Result<Daemon> {
    screen.heading("The router starts to balance")?;
    let config = lab.config() + "\n[monitor]\nup_after = \"2s\"   # short, for the demo: the default is 5s\n";
    lab.write_config(&config)?;
    screen.say(&config)?;
    screen.line("")?;
    screen.command("balance-user run --config FILE")?;
    let start = Instant::now();
    let daemon = lab.start(&[])?;
    wait_until(UP_TIMEOUT, "both ISPs up", || {
        states(lab).is_ok_and(|states| states == "CABLE up\nDSL up\n")
    })?;
    screen.say(&format!("Both ISPs answer {:.1} s after the start.", start.elapsed().as_secs_f64()))?;
    Ok(daemon)
}

/// Opens new flows and shows which ISPs they go by.
fn show_split(screen: &mut Screen, lab: &Lab, cable: usize, dsl: usize) -> anyhow::Result<()> {
    let split = traffic::split(lab, NEW_FLOWS)?;
    let (on_cable, on_dsl) = (split.of("CABLE"), split.of("DSL"));
    screen.shares(&[
        Share { isp: "CABLE", weight: cable, flows: on_cable },
        Share { isp: "DSL", weight: dsl, flows: on_dsl },
    ])?;
    let off = (percent(on_cable, on_cable + on_dsl) - percent(cable, cable + dsl)).abs();
    screen.claim(
        off <= TOLERANCE,
        &format!("the shares are within {TOLERANCE} percentage points of the weights (off by {off:.1})"),
    )?;
    let claim = "each flow was answered, and the internet host saw it come from one address all the time";
    let astray = if split.astray == 0 { String::new() } else { format!(" (not {})", split.astray) };
    screen.claim(split.astray == 0, &format!("{claim}{astray}"))?;
    Ok(())
}

fn fail_over(screen: &mut Screen, lab: &Lab, log: &mut Log) -> anyhow::Result<()> {
    let mut live = LiveFlows::open(lab, LIVE_FLOWS)?;
    let (on_cable, on_dsl) = (live.of("CABLE"), live.of("DSL"));
    screen.heading("CABLE dies silently: the line stays connected, but nothing gets through")?;
    screen.say(&format!("{on_cable} live flows go by CABLE and {on_dsl} by DSL. All keep talking."))?;
    let outage = traffic::outage(lab, &mut live, "CABLE", || lab.isp("CABLE").die_silently())?;
    log.show(screen)?;
    screen.claim(
        outage.duration < LONGEST_OUTAGE && outage.failed > 0,
        &format!(
            "new flows were without a way for {:.2} s ({} of {} that were tried got no answer)",
            outage.duration.as_secs_f64(),
            outage.failed,
            outage.tried
        ),
    )?;
    let fates = live.check(lab);
    let fate = |isp: &str| fates.get(isp).copied().unwrap_or_default();
    let (cable, dsl) = (fate("CABLE"), fate("DSL"));
    screen.claim(
        outage.missed == 0 && dsl.unharmed == on_dsl,
        &format!(
            "{} of the {on_dsl} live flows of DSL were disturbed (they asked {} times meanwhile, {} got no answer)",
            on_dsl - dsl.unharmed,
            outage.asked,
            outage.missed
        ),
    )?;
    screen.claim(
        cable.moved + cable.reset == on_cable,
        &format!(
            "no flow of CABLE hangs: {} (UDP) went on by DSL, {} (TCP) were reset and can connect again",
            cable.moved, cable.reset
        ),
    )?;
    Ok(live.close()?)
}

fn come_back(screen: &mut Screen, lab: &Lab, log: &mut Log) -> anyhow::Result<()> {
    let mut live = LiveFlows::open(lab, LIVE_FLOWS)?;
    screen.heading("CABLE lives again")?;
    screen.say(&format!("{} flows that began meanwhile go by DSL.", live.of("DSL")))?;
    let start = Instant::now();
    lab.isp("CABLE").revive()?;
    let is_up = || states(lab).is_ok_and(|states| states.starts_with("CABLE up\n"));
    wait_until(UP_TIMEOUT, "CABLE up again", is_up)?;
    log.show(screen)?;
    screen.say(&format!("In use again {:.1} s later.", start.elapsed().as_secs_f64()))?;
    nobody_moved(screen, lab, &mut live)?;
    live.close()?;
    show_split(screen, lab, 3, 1)
}

fn change_weight(screen: &mut Screen, lab: &Lab) -> anyhow::Result<()> {
    let mut live = LiveFlows::open(lab, LIVE_FLOWS)?;
    screen.heading("The operator gives CABLE a smaller weight")?;
    screen.command("balance-user set-weight CABLE 1")?;
    screen.say(&balance(lab, &["set-weight", "CABLE", "1"])?)?;
    nobody_moved(screen, lab, &mut live)?;
    live.close()?;
    show_split(screen, lab, 1, 1)
}

fn nobody_moved(screen: &mut Screen, lab: &Lab, live: &mut LiveFlows) -> anyhow::Result<()> {
    let (by_cable, by_dsl) = (live.of("CABLE"), live.of("DSL"));
    let fates = live.check(lab);
    let unharmed: usize = fates.values().map(|fate| fate.unharmed).sum();
    let all = by_cable + by_dsl;
    let text = format!("{unharmed} of {all} live flows stay where they are ({by_cable} CABLE, {by_dsl} DSL)");
    Ok(screen.claim(unharmed == all, &text)?)
}

fn stop(screen: &mut Screen, lab: &Lab, daemon: Daemon, before: &Dump) -> anyhow::Result<()> {
    screen.heading("The operator stops it")?;
    screen.command("balance-user stop")?;
    screen.say(&balance(lab, &["stop"])?)?;
    let ended = daemon.terminate()?;
    screen.claim(ended.status.success(), &format!("the daemon ended with {}", ended.status))?;
    let left = before.diff(&Dump::take(lab.router())?);
    let what = "rules, routes, nft, sysctls, tc, tcx, pinned maps and files of the router are as before";
    screen.claim(left.is_empty(), what)?;
    screen.say(&left.join("\n"))?;
    Ok(())
}

/// Runs `balance-user` on the router and returns what it printed.
fn balance(lab: &Lab, arguments: &[&str]) -> anyhow::Result<String> {
    let output = lab.balance(arguments)?;
    let command = arguments.join(" ");
    ensure!(output.status.success(), "`balance-user {command}` failed: {}", output.stderr.trim());
    Ok(output.stdout)
}

/// The ISPs with their states, a line each.
fn states(lab: &Lab) -> anyhow::Result<String> {
    balance(lab, &["status", "--short"])
}

/// What the daemon says on stderr.
struct Log {
    daemon: Daemon,
    shown: usize,
}

impl Log {
    /// Shows what it has said since the last time, but for the timestamps.
    fn show(&mut self, screen: &mut Screen) -> io::Result<()> {
        let log = self.daemon.stderr();
        for line in log.get(self.shown..).unwrap_or_default().lines() {
            screen.say(&format!("log: {}", line.split_once("  ").map_or(line, |(_, text)| text)))?;
        }
        self.shown = log.len();
        Ok(())
    }

    /// Leaves out what it has said so far.
    fn skip(&mut self) {
        self.shown = self.daemon.stderr().len();
    }
}
