//! How the lab runs the daemon.

use std::path::Path;
use std::process::Command;

use balance_lab::{Daemon, Lab, ready};

/// A stand-in for the daemon, which says what sd-notify would and then waits.
fn stand_in(lab: &Lab, said_first: &str) -> Command {
    let mut command = lab.router().command("python3");
    let script = "import os, socket, sys, time\n\
        print('up on', os.listdir('/run'), file=sys.stderr, flush=True)\n\
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        notify.connect(os.environ['NOTIFY_SOCKET'])\n\
        for line in sys.argv[1:]: notify.send(line.encode())\n\
        time.sleep(600)";
    command.args(["-c", script, said_first, "READY=1\nSTATUS=waiting"]);
    command
}

#[test]
fn a_daemon_is_waited_for_and_can_be_killed_and_terminated() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = Daemon::start(&lab, stand_in(&lab, "STATUS=starting")).unwrap();
    let process = format!("/proc/{}", daemon.pid());
    assert_eq!(daemon.notifications(), ["STATUS=starting", "READY=1", "STATUS=waiting"]);
    assert!(daemon.stderr().contains("up on"), "{}", daemon.stderr());
    assert!(Path::new(&process).exists());
    daemon.kill9().unwrap();
    assert!(!Path::new(&process).exists());

    let daemon = Daemon::start(&lab, stand_in(&lab, "STATUS=again")).unwrap();
    let output = daemon.terminate().unwrap();
    assert!(!output.status.success() && output.stderr.contains("up on"), "{output:?}");
}

#[test]
fn a_daemon_that_ends_early_shows_its_stderr() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let mut command = lab.router().command("sh");
    command.args(["-c", "echo no such device >&2; exit 2"]);
    let error = Daemon::start(&lab, command).err().unwrap().to_string();
    assert!(error.contains("exit status: 2") && error.contains("no such device"), "{error}");
}

#[test]
fn a_written_config_is_the_routers_alone() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let path = lab.write_config(&lab.config()).unwrap();
    assert_eq!(lab.read_config().unwrap(), lab.config());
    assert!(!path.exists());
}
