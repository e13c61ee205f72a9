//! Attaching XDP programs to devices of a real kernel.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{Xdp, XdpMode};
use balance_lab::checks::SOON;
use balance_lab::{Host, ready, wait_until};
use balance_user::config::Attach;
use balance_user::core::plan::{Attachment, Role};
use balance_user::datapath::{self, Datapath, DatapathError, Pins, XdpLinks};
use balance_user::devices::look;
use nix::net::if_::if_nametoindex;

/// An object with a program that lets every packet pass: an ELF file of five sections (none, names, symbols, the program,
/// its license).
fn object() -> Vec<u8> {
    const NAMES: &[u8] = b"\0.strtab\0.symtab\0xdp\0license\0fast_xdp\0";
    const PROGRAM: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    const LICENSE: &[u8] = b"GPL\0";
    let name = |name: &str| {
        let at = NAMES.windows(name.len() + 1).position(|bytes| bytes == format!("{name}\0").as_bytes());
        u32::try_from(at.unwrap()).unwrap().to_le_bytes()
    };
    // No symbol, and a global function in section 3.
    let mut symbols = vec![0; 24];
    symbols.extend(name("fast_xdp"));
    symbols.extend([0x12, 0, 3, 0]);
    symbols.extend([0_u64, 16].map(u64::to_le_bytes).concat());

    let mut content = Vec::new();
    let mut sections = vec![0; 64];
    for (section, kind, flags, info, entry, bytes) in [
        (".strtab", 3_u32, 0_u64, 0_u32, 0_u64, NAMES),
        (".symtab", 2, 0, 1, 24, &symbols),
        ("xdp", 1, 6, 0, 0, &PROGRAM),
        ("license", 1, 3, 0, 0, LICENSE),
    ] {
        let (at, length) = (64 + content.len() as u64, bytes.len() as u64);
        content.extend(bytes);
        content.resize(content.len().next_multiple_of(8), 0);
        sections.extend(name(section));
        sections.extend(kind.to_le_bytes());
        sections.extend([flags, 0, at, length].map(u64::to_le_bytes).concat());
        // The names of symbols are in section 1.
        sections.extend([u32::from(kind == 2), info].map(u32::to_le_bytes).concat());
        sections.extend([8, entry].map(u64::to_le_bytes).concat());
    }

    // 64 bits, little endian; relocatable, BPF; sections, the first of them with names.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xf7\0\x01\0\0\0".to_vec();
    file.extend([0, 0, 64 + content.len() as u64].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 5, 0, 1, 0]);
    file.extend(content);
    file.extend(sections);
    file
}

/// A daemon, as far as XDP goes.
struct Daemon {
    programs: Ebpf,
    links: XdpLinks,
    pins: Pins,
}

impl Daemon {
    fn new(instance: &str) -> Self {
        let pins = Pins::of(instance);
        pins.prepare(&[]).unwrap();
        let mut daemon = Self { programs: Ebpf::load(&object()).unwrap(), links: XdpLinks::default(), pins };
        daemon.program().load().unwrap();
        daemon
    }

    fn program(&mut self) -> &mut Xdp {
        self.programs.program_mut("fast_xdp").unwrap().try_into().unwrap()
    }

    /// The id of its program.
    fn id(&mut self) -> u32 {
        self.program().info().unwrap().id()
    }

    /// Attaches to these devices and no others.
    fn attach(&mut self, devices: &[&str]) -> BTreeMap<u32, DatapathError> {
        let wanted = devices.iter().map(|&device| (index(device), device.to_owned())).collect();
        let program = self.programs.program_mut("fast_xdp").unwrap().try_into().unwrap();
        let errors = self.links.attach(program, &self.pins, &wanted);
        self.links.detach_others(&self.pins, &wanted).unwrap();
        errors
    }

    /// Attaches to these and says how that failed for the only one where it did.
    fn failure(&mut self, devices: &[&str]) -> String {
        let errors = self.attach(devices);
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.values().next().unwrap().to_string()
    }
}

/// A machine with two veth pairs, `eth0` and `far0`, `eth1` and `far1`, that are up.
fn machine() -> Option<Host> {
    let host = ready().then(|| Host::new("test").unwrap())?;
    for pair in ["eth0 type veth peer name far0", "eth1 type veth peer name far1"] {
        host.sh(&format!("ip link add {pair}")).unwrap();
    }
    host.sh("for device in eth0 far0 eth1 far1; do ip link set $device up; done").unwrap();
    Some(host)
}

fn index(device: &str) -> u32 {
    if_nametoindex(device).unwrap()
}

/// The id of the program that a device runs natively.
fn native(device: &str) -> Option<u32> {
    running(device, "xdp")
}

/// The id of the program that a device runs behind its driver.
fn generic(device: &str) -> Option<u32> {
    running(device, "xdpgeneric")
}

fn running(device: &str, mode: &str) -> Option<u32> {
    let output = std::process::Command::new("ip").args(["link", "show", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once(&format!(" {mode} "))?;
    let (_, rest) = rest.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn link_id(instance: &str, device: &str) -> u32 {
    let pin = Pins::of(instance).link("fast_xdp", index(device));
    FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap().id()
}

#[test]
fn a_program_runs_in_the_driver_and_outlives_its_daemon() {
    let Some(host) = machine() else { return };
    host.run(|| {
        let mut daemon = Daemon::new("main");
        assert!(daemon.attach(&["eth0"]).is_empty());
        let id = daemon.id();
        assert_eq!((native("eth0"), native("eth1")), (Some(id), None));
        assert!(daemon.attach(&["eth0", "eth1"]).is_empty());
        drop(daemon);
        assert_eq!((native("eth0"), native("eth1")), (Some(id), Some(id)));
    });
}

#[test]
fn the_next_daemon_replaces_the_program_in_place() {
    let Some(host) = machine() else { return };
    host.run(|| {
        assert!(Daemon::new("main").attach(&["eth0"]).is_empty());
        let (link, old) = (link_id("main", "eth0"), native("eth0"));
        let mut daemon = Daemon::new("main");
        assert_eq!(native("eth0"), old, "not before it says so");
        for _ in 0..2 {
            assert!(daemon.attach(&["eth0"]).is_empty());
            assert_eq!(native("eth0"), Some(daemon.id()));
            assert_ne!(native("eth0"), old);
            assert_eq!(link_id("main", "eth0"), link);
        }
    });
}

#[test]
fn what_is_no_longer_wanted_is_detached_and_nothing_else() {
    let Some(host) = machine() else { return };
    host.run(|| {
        let lan =
            Attachment { index: index("eth0"), device: "eth0".to_owned(), role: Role::Lan, ethernet: true };
        let mut other = Datapath::load(Pins::of("main"), Attach::Auto, "/run/qdiscs".into(), 1024).unwrap();
        let mut attach = || assert!(other.attach(&[lan.clone()].into()).is_empty());
        attach();
        let count = || Pins::of("main").links().read_dir().unwrap().count();
        let others = count();
        let mut daemon = Daemon::new("main");
        assert!(daemon.attach(&["eth0", "eth1"]).is_empty());
        attach();
        assert_eq!(count(), others + 2, "neither removes what the other has made");
        assert!(daemon.attach(&["eth1"]).is_empty());
        wait_until(SOON, "its end", || native("eth0").is_none()).unwrap();
        assert_eq!((native("eth1"), count()), (Some(daemon.id()), others + 1));
        // By a later one, too.
        Daemon::new("main").attach(&[]);
        wait_until(SOON, "its end", || native("eth1").is_none()).unwrap();
        assert_eq!(count(), others);
    });
}

#[test]
fn stopping_detaches_all() {
    let Some(host) = machine() else { return };
    host.run(|| {
        assert!(Daemon::new("main").attach(&["eth0", "eth1"]).is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let errors = runtime.block_on(datapath::detach(&Pins::of("main"), "/run/qdiscs".as_ref()));
        assert!(errors.is_empty(), "{errors:?}");
        wait_until(SOON, "their end", || native("eth0").is_none() && native("eth1").is_none()).unwrap();
    });
}

#[test]
fn programs_of_others_are_left_alone() {
    let Some(host) = machine() else { return };
    host.run(|| {
        let mut other = Daemon::new("other");
        assert!(other.attach(&["eth0"]).is_empty());
        let id = other.id();
        let far = other.program().attach("far0", XdpMode::Skb).unwrap();
        let mut daemon = Daemon::new("main");
        for device in ["eth0", "far0"] {
            let expected = format!("{device} has an XDP program of somebody else");
            assert_eq!(daemon.failure(&[device, "eth1"]), expected);
            assert_eq!(native("eth1"), Some(daemon.id()), "the others have theirs");
        }
        daemon.attach(&[]);
        assert_eq!((native("eth0"), generic("far0")), (Some(id), Some(id)));

        // Once the way is free it is taken.
        other.attach(&[]);
        other.program().detach(far).unwrap();
        wait_until(SOON, "its being attached", || daemon.attach(&["eth0", "far0"]).is_empty()).unwrap();
        assert_eq!((native("eth0"), native("far0")), (Some(daemon.id()), Some(daemon.id())));
    });
}

#[test]
fn without_native_xdp_there_is_an_error_and_no_other_kind() {
    let Some(host) = machine() else { return };
    host.run(|| {
        let mut daemon = Daemon::new("main");
        let error = daemon.failure(&["lo", "eth0"]);
        assert!(error.starts_with("cannot attach fast_xdp to lo: "), "{error}");
        assert_eq!((native("lo"), generic("lo"), native("eth0")), (None, None, Some(daemon.id())));
        assert!(!Pins::of("main").link("fast_xdp", index("lo")).exists());
    });
}

#[test]
fn a_device_that_went_and_came_back_has_the_program_again() {
    let Some(host) = machine() else { return };
    let again =
        |number| format!("ip link del eth0; ip link add eth0 index {number} type veth peer name far0");
    host.run(|| {
        assert!(Daemon::new("main").attach(&["eth0"]).is_empty());
        // With its old number, which the link of old is pinned by, and with another.
        for number in [index("eth0"), 4_711] {
            host.sh(&again(number)).unwrap();
            assert_eq!(native("eth0"), None);
            let mut daemon = Daemon::new("main");
            assert!(daemon.attach(&["eth0"]).is_empty());
            assert_eq!(native("eth0"), Some(daemon.id()));
        }
        assert_eq!(Pins::of("main").links().read_dir().unwrap().count(), 1);
    });
}

#[test]
fn a_veth_takes_packets_from_xdp_once_its_other_end_runs_a_program() {
    let Some(host) = machine() else { return };
    host.run(|| {
        const NDO_XMIT: u64 = 4;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let takes = || {
            let facts = runtime.block_on(look(index("far0"), &BTreeSet::new())).unwrap().unwrap();
            facts.xdp_features.map(|features| features & NDO_XMIT != 0)
        };
        let before = takes();
        assert!(Daemon::new("main").attach(&["eth0"]).is_empty());
        assert_eq!((before, takes()), (before.map(|_| false), before.map(|_| true)));
    });
}
