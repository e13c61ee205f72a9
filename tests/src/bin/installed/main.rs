//! The package at work: boots a Debian, in which the package has been installed, as the router of a lab, and treats it as
//! people would, up to its removal. `cargo xtask package --test` makes that Debian and runs this.
//!
//! What does not go as it should ends it with an error.

mod machine;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use balance_lab::{Dump, Family, Lab, Stream, Transport, by_source, open_flows, wait_until};

use machine::Machine;

/// How long something may take to come about.
const SOON: Duration = Duration::from_secs(15);
/// So many questions a second, over so many flows, while something is done that must disturb none of them.
const RATE: u32 = 200;
const FLOWS: usize = 20;

/// What the sandbox must leave to the scripts and hooks, as they say what they could do.
const SCRIPT: &str = "set -e
ip tuntap add dev tun9 mode tun
sysctl -q net.ipv4.conf.tun9.rp_filter=2
echo \"$BALANCE_EVENT\" > /var/log/balance-pre-run
sleep 1000 >/dev/null 2>&1 &";
const HOOK: &str = "echo \"$2 $1\" >> /run/balance-hook
nft list tables >> /run/balance-hook
systemd-run --quiet --collect touch /srv/outside-of-the-sandbox";
/// Makes the watchdog of the unit impatient, as an administrator could make it.
const DROP_IN: &str = "[Service]\nWatchdogSec=2s\n";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    started();
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, package] = arguments.as_slice() else {
        bail!("usage: installed ROOT PACKAGE; PACKAGE is its path below ROOT");
    };
    let lab = Lab::new()?;
    let machine = Machine::boot(&lab, root)?;
    nothing_has_begun(&machine)?;
    let before = Dump::take(lab.router())?;
    begin(&lab, &machine)?;
    failover(&lab, &machine)?;
    reload(&machine)?;
    upgrade(&lab, &machine, package)?;
    watchdog(&lab, &machine)?;
    stop_and_start(&lab, &machine)?;
    remove(&machine)?;
    let left = before.diff(&Dump::take(lab.router())?);
    ensure!(left.is_empty(), "the removal leaves something behind: {left:#?}");
    say("apt-get remove and purge: nothing is left, of the network nor of files");
    Ok(())
}

/// After `apt-get install`: all is there, and nothing runs.
fn nothing_has_begun(machine: &Machine<'_>) -> anyhow::Result<()> {
    let state = machine.sh("systemctl is-enabled balance || true; systemctl is-active balance || true")?;
    ensure!(state == "disabled\ninactive\n", "after the installation the unit is {state:?}");
    machine.sh(
        "test -e /etc/balance/balance.toml; balance-user check; getent group balance; test ! -e /run/balance
         test -z \"$(nft list tables)\"; systemd-analyze verify --man=no balance.service balance@guests.service",
    )?;
    say("installed: the sample is in place, the units are right, nothing runs");
    Ok(())
}

/// One file is edited, one command is given.
fn begin(lab: &Lab, machine: &Machine<'_>) -> anyhow::Result<()> {
    machine.write("/etc/balance/balance.toml", &lab.config())?;
    machine.script("/etc/balance/pre-run.d/10-tunnel", SCRIPT)?;
    machine.script("/etc/balance/event.d/10-note", HOOK)?;
    machine.sh("systemctl enable --now balance")?;
    all_up(machine)?;
    shares(lab)?;
    machine.sh("test \"$(cat /var/log/balance-pre-run)\" = start; ip link show tun9; pgrep -x sleep")?;
    let allowed = machine.sh("grep CapBnd /proc/$(systemctl show -P MainPID balance)/status")?;
    say(&format!("systemctl enable --now balance: flows are shared, scripts have run; {}", allowed.trim()));
    Ok(())
}

fn failover(lab: &Lab, machine: &Machine<'_>) -> anyhow::Result<()> {
    lab.isp("CABLE").die_silently()?;
    wait_until(SOON, "CABLE being down", || state(machine, "CABLE").is_ok_and(|state| state == "down"))?;
    let mut flows = open_flows(lab.lan(), FLOWS, Transport::Tcp, Family::V4)?;
    let by_dsl = flows.ask(SOON).into_iter().filter(|answer| {
        answer.as_ref().is_ok_and(|&source| lab.isp_of(source).is_some_and(|isp| isp.name() == "DSL"))
    });
    let by_dsl = by_dsl.count();
    ensure!(by_dsl == FLOWS, "{by_dsl} of {FLOWS} new flows go by DSL");
    lab.isp("CABLE").revive()?;
    all_up(machine)?;
    let hook = || {
        machine.sh("grep 'CABLE down' /run/balance-hook; grep 'inet balance' /run/balance-hook; test -e /srv/outside*")
    };
    wait_until(SOON, "the hook being told", || hook().is_ok())?;
    say("an ISP that dies has no new flows, hooks are told of it, and it comes back");
    Ok(())
}

fn reload(machine: &Machine<'_>) -> anyhow::Result<()> {
    machine.sh("cp /etc/balance/balance.toml /root/good; echo wrong >> /etc/balance/balance.toml")?;
    ensure!(machine.sh("systemctl reload balance").is_err(), "a wrong config is reloaded");
    let log = machine.sh("journalctl -u balance -n 20 -o cat")?;
    ensure!(log.contains("/etc/balance/balance.toml:"), "the log does not tell the place: {log}");
    machine.sh("cp /root/good /etc/balance/balance.toml; systemctl reload balance")?;
    all_up(machine)?;
    say("a wrong config makes the reload fail, with the reason in the log; a right one is taken");
    Ok(())
}

/// Installs the package once more, over itself, which is what an upgrade does.
fn upgrade(lab: &Lab, machine: &Machine<'_>, package: &std::path::Path) -> anyhow::Result<()> {
    let pid = machine.pid()?;
    let stream = Stream::start(lab.lan(), RATE, FLOWS, Family::V4)?;
    machine.sh(&format!("apt-get install --reinstall --yes {}", package.display()))?;
    all_up(machine)?;
    let report = stream.stop()?;
    ensure!(machine.pid()? != pid, "the daemon was not restarted");
    ensure!(report.lost == 0 && report.moved == 0, "the upgrade has been noticed: {report:?}");
    machine.sh("pgrep -x sleep").context("what a script has started was ended")?;
    say(&format!("upgrade: {} packets, none lost, no flow moved, the tunnels of scripts go on", report.sent));
    Ok(())
}

fn watchdog(lab: &Lab, machine: &Machine<'_>) -> anyhow::Result<()> {
    machine.write("/etc/systemd/system/balance.service.d/quick.conf", DROP_IN)?;
    machine.sh("systemctl daemon-reload; systemctl restart balance")?;
    all_up(machine)?;
    let pid = machine.pid()?;
    let stream = Stream::start(lab.lan(), RATE, FLOWS, Family::V4)?;
    machine.sh(&format!("kill -STOP {pid}"))?;
    wait_until(SOON, "the watchdog", || machine.pid().is_ok_and(|now| now != pid && now != "0"))?;
    all_up(machine)?;
    let report = stream.stop()?;
    ensure!(report.lost == 0 && report.moved == 0, "the watchdog has been noticed: {report:?}");
    say(&format!("a daemon that hangs is replaced: {} packets meanwhile, none lost", report.sent));
    Ok(())
}

fn stop_and_start(lab: &Lab, machine: &Machine<'_>) -> anyhow::Result<()> {
    let stream = Stream::start(lab.lan(), RATE, FLOWS, Family::V4)?;
    machine.sh(
        "systemctl stop balance; balance-user status; test -d /run/balance/main; nft list table inet balance",
    )?;
    shares(lab)?;
    machine.sh("systemctl start balance")?;
    all_up(machine)?;
    let report = stream.stop()?;
    ensure!(report.lost == 0 && report.moved == 0, "stop and start have been noticed: {report:?}");
    say("systemctl stop leaves the balancing as it is, and the next start takes over");
    Ok(())
}

fn remove(machine: &Machine<'_>) -> anyhow::Result<()> {
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get remove --yes balance-router; ip link del tun9; pkill -x sleep")?;
    machine.sh("test ! -e /usr/bin/balance-user; test ! -e /run/balance; test ! -e /sys/fs/bpf/balance
         test -z \"$(nft list tables)\"; test ! -e /etc/systemd/system/multi-user.target.wants/balance.service
         test -e /etc/balance/balance.toml; test -e /var/lib/balance")?;
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get purge --yes balance-router; test ! -e /etc/balance/balance.toml")?;
    // What the administrator has put there stays.
    machine.sh("test ! -e /var/lib/balance; test -e /etc/balance/pre-run.d/10-tunnel")?;
    Ok(())
}

fn state(machine: &Machine<'_>, isp: &str) -> anyhow::Result<String> {
    let status: serde_json::Value = serde_json::from_str(&machine.sh("balance-user status --json")?)?;
    let isps = status.get("isps").and_then(serde_json::Value::as_array).context("no ISPs in the status")?;
    let field = |value: &serde_json::Value, key| {
        value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    let found = isps.iter().find(|value| field(value, "name").as_deref() == Some(isp));
    found.and_then(|isp| field(isp, "state")).with_context(|| format!("no {isp} in the status"))
}

fn all_up(machine: &Machine<'_>) -> anyhow::Result<()> {
    let is_up = |isp| state(machine, isp).is_ok_and(|state| state == "up");
    let up = wait_until(SOON, "both ISPs being up", || is_up("CABLE") && is_up("DSL"));
    up.with_context(|| {
        machine
            .sh("systemctl status balance; balance-user status")
            .unwrap_or_else(|error| format!("{error:#}"))
    })
}

/// New flows go by both ISPs.
fn shares(lab: &Lab) -> anyhow::Result<()> {
    let mut flows = open_flows(lab.lan(), 100, Transport::Udp, Family::V4)?;
    let sources = by_source(&flows.ask(SOON));
    ensure!(sources.len() == 2 && sources.values().sum::<usize>() == 100, "flows come from {sources:?}");
    Ok(())
}

fn say(text: &str) {
    // Not `println`, which panics when the pipe is closed.
    let _ = writeln!(io::stdout(), "{:>4.0} s  {text}", started().elapsed().as_secs_f64());
}

fn started() -> Instant {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}
