//! Daemons that come and go, and machines on which sockets cannot be marked.

use std::net::SocketAddr;

use balance_lab::addresses::SERVER_PORT;
use balance_lab::checks::{SOON, changes};
use balance_lab::{Dump, Family, Flows, Lab, Transport, ready, wait_until};
use balance_user::datapath::cgroup2_mount;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{balancing, by_cable, local_traffic, new_mark, open, standalone};

#[test]
fn sockets_are_marked_without_a_daemon_and_while_another_one_takes_over_and_not_after_stop() {
    if !ready() {
        return;
    }
    let lab = standalone("");
    let before = Dump::take(lab.router()).unwrap();
    let daemon = lab.start_up().unwrap();
    std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let lab = &lab;
        let unmarked = scope.spawn(move || {
            lab.router().run(move || {
                let mut unmarked = 0;
                while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
                    unmarked += u32::from(socket.mark().unwrap() == 0);
                }
                unmarked
            })
        });
        daemon.kill9().unwrap();
        assert_eq!(local_traffic(lab)["kind"], "sockets");
        let daemon = lab.start_up().unwrap();
        daemon.terminate().unwrap();
        let _daemon = lab.start_up().unwrap();
        drop(end);
        assert_eq!(unmarked.join().unwrap(), 0);
    });
    let mut flows = open(&lab, 400, Transport::Tcp, Family::V6);
    assert!((250..=350).contains(&by_cable(&lab, &flows.ask(SOON), Family::V6)));
    assert_eq!(lab.balance_ok(&["stop"]).unwrap(), "stopped; everything is as it was\n");
    assert_eq!(changes(&lab, &before), Vec::<String>::new());
    assert_eq!(new_mark(lab.router()), 0);
}

#[test]
fn a_reload_switches_it_off_and_on() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing();
    let config = lab.read_config().unwrap();
    let reload = |local_traffic: bool| {
        lab.write_config(&format!("local_traffic = {local_traffic}\n{config}")).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
        let what = format!("local_traffic = {local_traffic}");
        wait_until(SOON, &what, || (new_mark(lab.router()) != 0) == local_traffic).unwrap();
    };
    reload(false);
    let off = local_traffic(&lab);
    assert_eq!((&off["kind"], &off["reason"]), (&"route".into(), &"`local_traffic` is false".into()));
    let answers = open(&lab, 40, Transport::Tcp, Family::V4).ask(SOON);
    by_cable(&lab, &answers, Family::V4);
    reload(true);
    assert_eq!(local_traffic(&lab)["kind"], "sockets");
}

/// Takes away all mounts of cgroup2 that the router sees.
fn unmount_cgroup2(lab: &Lab) {
    let mount = || {
        let mounts = lab.router().run(|| std::fs::read_to_string("/proc/thread-self/mountinfo")).unwrap();
        cgroup2_mount(&mounts)
    };
    while let Some(path) = mount() {
        lab.router().sh(&format!("umount -l '{}'", path.display())).unwrap();
    }
}

#[test]
fn without_cgroup2_the_weighted_default_route_decides_and_status_says_so() {
    if !ready() {
        return;
    }
    let lab = standalone("");
    unmount_cgroup2(&lab);
    let _daemon = lab.start_up().unwrap();
    let local = local_traffic(&lab);
    assert_eq!((&local["kind"], &local["reason"]), (&"route".into(), &"cgroup2 is not mounted".into()));
    let text = lab.balance_ok(&["status"]).unwrap();
    let said = "local traffic: by the weighted default route (cgroup2 is not mounted)";
    assert!(text.contains(said), "{text}");
    assert_eq!(new_mark(lab.router()), 0);
    // By destination, as the kernel does it.
    let to = (1..=200).map(|last| SocketAddr::from(([203, 0, 113, last], SERVER_PORT))).collect();
    let answers = Flows::open_to(lab.router(), Transport::Tcp, to).unwrap().ask(SOON);
    let cable = by_cable(&lab, &answers, Family::V4);
    assert!((110..=190).contains(&cable), "CABLE has {cable} of 200");
}

#[test]
fn cgroup2_may_be_mounted_anywhere() {
    if !ready() {
        return;
    }
    let lab = standalone("");
    unmount_cgroup2(&lab);
    lab.router().sh("mkdir '/run/control groups' && mount -t cgroup2 none '/run/control groups'").unwrap();
    let _daemon = lab.start_up().unwrap();
    assert_eq!(local_traffic(&lab)["kind"], "sockets");
    assert_ne!(new_mark(lab.router()), 0);
}
