//! How soon `flows` shows something, and what it costs, with very many flows.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::{Lab, binary};

/// What an 80x24 terminal shows.
const SCREEN: u64 = 24;
/// So many flows go to each address of the internet.
const PORTS: u32 = 50_000;

/// What it takes to list flows.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// Lines that were printed.
    pub lines: u64,
    /// From the start until the first screen is full.
    pub first_screen: Duration,
    /// From the start to the end.
    pub all: Duration,
    /// The most memory it had, in bytes (`VmHWM`).
    pub memory: u64,
}

/// Gives the router's conntrack so many UDP flows of its first LAN host, by its ISPs in turn.
///
/// # Errors
/// When conntrack does not take them: `net.netfilter.nf_conntrack_max` of the machine holds for the lab, too.
pub fn fill(lab: &Lab, count: u32) -> anyhow::Result<()> {
    let mut lines = String::new();
    for number in 0..count {
        let (address, port) = (10 + number / PORTS, 10_000 + number % PORTS);
        let mark = 0x100 * (1 + number % 2);
        writeln!(
            lines,
            "-I -p udp -s 192.168.1.10 -d 203.0.113.{address} --sport 5000 --dport {port} -t 3600 -m {mark}"
        )?;
    }
    // The program reads a file, twice.
    lab.router().feed("sh", &["-ec", "cat > /run/flows; conntrack -R /run/flows; rm /run/flows"], &lines)?;
    Ok(())
}

/// Lists all flows.
///
/// # Errors
/// When that fails.
pub fn listing(lab: &Lab) -> anyhow::Result<Listing> {
    let mut command = lab.router().command(binary()?);
    command.arg("flows").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = lab.router().spawn(command)?;
    let output = child.stdout.take().context("a child without stdout")?;
    let mut output = BufReader::with_capacity(1 << 16, output);
    let mut listing = Listing { lines: 0, first_screen: Duration::ZERO, all: Duration::ZERO, memory: 0 };
    let mut line = Vec::new();
    while output.by_ref().read_until(b'\n', &mut line)? > 0 {
        line.clear();
        listing.lines += 1;
        if listing.lines == SCREEN {
            listing.first_screen = start.elapsed();
        }
        // It waits for us to read, or has not got to its end yet.
        if listing.lines.is_multiple_of(4096) {
            listing.memory = peak(child.id()).unwrap_or(listing.memory);
        }
    }
    listing.all = start.elapsed();
    ensure!(child.wait()?.success(), "it failed");
    Ok(listing)
}

/// The most memory that a process has had, in bytes.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1024)
}
