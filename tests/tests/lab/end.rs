//! Nothing stays behind, however a lab ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use balance_lab::{Host, Lab, ready, wait_until};

use crate::support::{SOON, plain_lab};

/// The kernel takes namespaces down one after the other, those of other tests too.
const KERNEL: Duration = Duration::from_secs(20);

/// Ties each machine of a lab to a device in another network namespace: it is there as long as the machine is.
fn tie(lab: &Lab, netns: &str) -> anyhow::Result<()> {
    let isps = lab.isps().iter().map(balance_lab::Isp::host);
    let hosts = [lab.router(), lab.internet()].into_iter().chain(lab.lan_hosts()).chain(isps);
    for (host, index) in hosts.zip(0..) {
        host.ip(&[format!("link add tie type veth peer name tie{index} netns {netns}")])?;
    }
    Ok(())
}

fn ties(witness: &Host) -> anyhow::Result<usize> {
    Ok(witness.sh("ip -o link show type veth")?.lines().count())
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() {
    if !ready() {
        return;
    }
    let witness = Host::new("witness").unwrap();
    let lab = plain_lab().unwrap();
    tie(&lab, &witness.netns()).unwrap();
    let mut sleep = lab.router().command("sleep");
    sleep.arg("600");
    // Forgotten, so that only the end of the lab can end it.
    let child = std::mem::ManuallyDrop::new(lab.router().spawn(sleep).unwrap());
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|file| file.ino());
    let process = child.id().to_string();
    assert_eq!(namespace(&process).unwrap(), lab.router().run(|| namespace("thread-self")).unwrap());
    assert_eq!(ties(&witness).unwrap(), 5);
    drop(lab);
    wait_until(SOON, "the end of the process", || namespace(&process).is_err()).unwrap();
    wait_until(KERNEL, "the end of the namespaces", || ties(&witness).unwrap() == 0).unwrap();
}

const VICTIM: &str = "BALANCE_LAB_VICTIM";

/// Not a test by itself: the process that the next one kills.
#[test]
fn victim() {
    let Some(report) = std::env::var_os(VICTIM) else { return };
    let lab = plain_lab().unwrap();
    // This process was started in the witness's namespace.
    tie(&lab, &format!("/proc/{}/ns/net", std::process::id())).unwrap();
    let mut sleep = lab.router().command("sleep");
    sleep.arg("600");
    let child = lab.router().spawn(sleep).unwrap();
    fs::write(report, format!("{} end", child.id())).unwrap();
    wait_until(Duration::from_mins(10), "death", || false).unwrap();
}

#[test]
fn a_killed_process_leaves_nothing_of_its_labs_behind() {
    if !ready() {
        return;
    }
    let witness = Host::new("witness").unwrap();
    let mut victim = witness.command(std::env::current_exe().unwrap());
    // The host's /run is its own, so no file stays behind either.
    victim.args(["--exact", "end::victim"]).env(VICTIM, "/run/victim").stdout(Stdio::null());
    let mut victim = witness.spawn(victim).unwrap();
    let mut report = String::new();
    wait_until(Duration::from_secs(10), "the victim's lab", || {
        report = witness.run(|| fs::read_to_string("/run/victim")).unwrap_or_default();
        report.ends_with("end")
    })
    .unwrap();
    assert_eq!(ties(&witness).unwrap(), 5);
    victim.kill9().unwrap();
    let process = format!("/proc/{}/ns/net", report.split(' ').next().unwrap());
    wait_until(SOON, "the end of the process", || fs::metadata(&process).is_err()).unwrap();
    wait_until(KERNEL, "the end of the namespaces", || ties(&witness).unwrap() == 0).unwrap();
}

#[test]
fn a_lab_is_made_and_taken_down_quickly() {
    if !ready() {
        return;
    }
    let start = Instant::now();
    let lab = Lab::new().unwrap();
    let made = start.elapsed();
    drop(lab);
    println!("made in {made:?}, gone after {:?}", start.elapsed());
    // A second for one alone; here other tests want the machine too.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
