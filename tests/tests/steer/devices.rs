//! The programs on real devices, attached in both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::HashMap;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use balance_common::layout::{Device, PolicyEntry, Settings};
use balance_common::{Family, IspId, Member, PolicyId, build_table};
use balance_lab::addresses::{SINK_PORT, internet};
use balance_lab::{Lab, ready, send_one_way, wait_until};
use balance_user::config::Attach;
use balance_user::core::plan::{Attachment, MapPlan, Role};
use balance_user::datapath::{Datapath, Maps, OBJECT, Pins};
use balance_user::rules::Rules;
use nix::net::if_::if_nametoindex;

/// Sent while daemons come and go.
const PACKETS: u64 = 20_000;
const SOON: Duration = Duration::from_secs(5);
const BOTH: [Attach; 2] = [Attach::Tcx, Attach::Clsact];
/// Counts what comes from the LAN to the internet host's sink, and what of that carries the mark of ISP 1.
const COUNT: &str = "table inet test {
    counter arrived {}
    counter marked {}
    chain in {
        type filter hook prerouting priority -300;
        iifname lan0 udp dport 7001 counter name arrived;
        iifname lan0 udp dport 7001 meta mark & 0x3f00 == 0x100 counter name marked;
    }
}";

/// A lab whose router has programs attached, without a daemon.
struct Router {
    lab: Lab,
}

impl Router {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        lab.router().feed("nft", &["-f", "-"], COUNT).unwrap();
        Self { lab }
    }

    /// Loads the programs as a daemon does, and attaches them to lan0 and to this ISP's device.
    fn attach(&self, attach: Attach, isp: &str) -> Datapath {
        let wanted = [self.attachment("lan0", Role::Lan), self.attachment(isp, Role::Isp)];
        self.lab.router().run(|| {
            let mut datapath =
                Datapath::load(Pins::of("main"), attach, PathBuf::from("/run/qdiscs"), 1024).unwrap();
            datapath.maps().unwrap().apply(&Self::plan(&[])).unwrap();
            let errors = datapath.attach(&BTreeSet::from(wanted));
            assert!(errors.is_empty(), "{errors:?}");
            datapath
        })
    }

    fn attachment(&self, device: &str, role: Role) -> Attachment {
        let index = self.lab.router().run(|| if_nametoindex(device).unwrap());
        Attachment { index, device: device.to_owned(), role, ethernet: true }
    }

    /// All flows to ISP 1.
    fn plan(local: &[&str]) -> MapPlan {
        let table = build_table(&[Member { isp: IspId::new(1).unwrap(), weight: 1 }], &[]).bytes();
        let lan = if_nametoindex("lan0").unwrap();
        MapPlan {
            settings: Settings { mark_mask: 0x3f00, ..Settings::default() },
            isps: BTreeMap::new(),
            policies: BTreeMap::from([(
                PolicyId::DEFAULT,
                PolicyEntry { name: [b'x'; 32], ..PolicyEntry::default() },
            )]),
            tables: Family::ALL.map(|family| ((PolicyId::DEFAULT, family), table)).into(),
            rules: Arc::new(Rules::none()),
            local: local.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            learn: BTreeSet::new(),
            devices: BTreeMap::from([(lan, Device { ethernet: 1, ..Device::default() })]),
        }
    }

    /// Sends so many packets in each family and returns how many of them were marked.
    fn marked_of(&self, packets: u64) -> u64 {
        let (all, marked) = (self.counter("arrived"), self.counter("marked"));
        for family in Family::ALL {
            send_one_way(self.lab.lan(), packets, family).unwrap();
        }
        self.wait_for(all + 2 * packets);
        self.counter("marked") - marked
    }

    fn wait_for(&self, all: u64) {
        wait_until(SOON, "the packets from the LAN", || self.counter("arrived") == all).unwrap();
    }

    fn counter(&self, name: &str) -> u64 {
        let text = self.lab.router().sh(&format!("nft list counter inet test {name}")).unwrap();
        text.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
    }

    /// The tcx programs of a device, by number, in their order.
    fn tcx(&self, device: &str, direction: TcAttachType) -> Vec<u32> {
        let (_, programs) = self.lab.router().run(|| SchedClassifier::query_tcx(device, direction)).unwrap();
        programs.iter().map(aya::programs::ProgramInfo::id).collect()
    }

    /// How many eBPF filters there are in the clsact qdisc of a device.
    fn filters(&self, device: &str, direction: &str) -> usize {
        let list = format!("tc filter show dev {device} {direction}");
        self.lab.router().sh(&list).unwrap_or_default().matches(" direct-action ").count()
    }

    /// How many programs there are on each hook of lan0 and an ISP's device: tcx, clsact.
    fn programs(&self, isp: &str) -> [(usize, usize); 3] {
        let count = |device, direction, name| (self.tcx(device, direction).len(), self.filters(device, name));
        [
            count("lan0", TcAttachType::Ingress, "ingress"),
            count(isp, TcAttachType::Ingress, "ingress"),
            count(isp, TcAttachType::Egress, "egress"),
        ]
    }
}

/// One program on each hook.
const fn one_each(attach: Attach) -> [(usize, usize); 3] {
    [if matches!(attach, Attach::Clsact) { (0, 1) } else { (1, 0) }; 3]
}

/// Somebody else's program on lan0: a second instance of our counting one, with maps of its own.
struct Foreign(Ebpf);

impl Foreign {
    fn attach(router: &Router, name: &str, options: TcAttachOptions) -> Self {
        router.lab.router().run(|| {
            let folder = format!("/sys/fs/bpf/{name}");
            std::fs::create_dir(&folder).unwrap();
            let mut ebpf = EbpfLoader::new().default_map_pin_directory(&folder).load(OBJECT).unwrap();
            let lan = if_nametoindex("lan0").unwrap();
            HashMap::<_, u32, Device>::try_from(ebpf.map_mut("DEVICES").unwrap())
                .unwrap()
                .insert(lan, Device { isp: 1, ethernet: 1, ..Device::default() }, 0)
                .unwrap();
            let program: &mut SchedClassifier = ebpf.program_mut("isp_ingress").unwrap().try_into().unwrap();
            program.load().unwrap();
            let _ = qdisc_add_clsact("lan0");
            let id = program.attach_with_options("lan0", TcAttachType::Ingress, options).unwrap();
            // It shall be gone with the lab, not before and not from another network.
            std::mem::forget(program.take_link(id).unwrap());
            Self(ebpf)
        })
    }

    fn number(&self) -> u32 {
        let program: &SchedClassifier = self.0.program("isp_ingress").unwrap().try_into().unwrap();
        program.info().unwrap().id()
    }

    fn packets(&self) -> u64 {
        let counters = aya::maps::PerCpuArray::<_, balance_common::layout::IspCounters>::try_from(
            self.0.map("COUNTERS").unwrap(),
        );
        counters.unwrap().get(&1, 0).unwrap().iter().map(|counters| counters.rx.packets).sum()
    }
}

#[test]
fn packets_from_a_lan_carry_the_mark_in_both_families() {
    if !ready() {
        return;
    }
    for attach in BOTH {
        let router = Router::new();
        assert_eq!(router.marked_of(50), 0);
        let _datapath = router.attach(attach, "cable0");
        assert_eq!(router.programs("cable0"), one_each(attach));
        assert_eq!(router.marked_of(50), 100, "{attach:?}");
    }
}

#[test]
fn programs_of_others_before_and_after_ours_still_run() {
    if !ready() {
        return;
    }
    let by_tcx = || TcAttachOptions::TcxOrder(LinkOrder::first());
    let by_clsact = |priority| {
        TcAttachOptions::Netlink(NlOptions { priority, handle: TcHandle::new(0, 1), classid: None })
    };
    for attach in BOTH {
        let router = Router::new();
        let is_tcx = attach == Attach::Tcx;
        let after = Foreign::attach(&router, "after", if is_tcx { by_tcx() } else { by_clsact(100) });
        let _datapath = router.attach(attach, "cable0");
        let before = Foreign::attach(&router, "before", if is_tcx { by_tcx() } else { by_clsact(1) });
        if is_tcx {
            let order = router.tcx("lan0", TcAttachType::Ingress);
            assert_eq!((order.len(), order[0], order[2]), (3, before.number(), after.number()));
        } else {
            assert_eq!(router.filters("lan0", "ingress"), 3);
        }
        assert_eq!(router.marked_of(50), 100, "{attach:?}");
        // They count neighbour discovery too.
        assert!(before.packets() >= 100 && after.packets() >= 100, "{attach:?}");
        // Once more as the daemon's successor: its place among the others is the same.
        drop(router.attach(attach, "cable0"));
        assert_eq!(router.marked_of(50), 100, "{attach:?}");
        assert!(before.packets() >= 200 && after.packets() >= 200, "{attach:?}");
    }
}

#[test]
fn a_new_daemon_takes_over_without_a_packet_going_by() {
    if !ready() {
        return;
    }
    for attach in BOTH {
        let router = Router::new();
        drop(router.attach(attach, "cable0"));
        assert_eq!(router.programs("cable0"), one_each(attach), "they outlive a crash");
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_one_way(router.lab.lan(), PACKETS, Family::V4).unwrap());
            let mut takeovers = 0;
            while !sender.is_finished() || takeovers < 2 {
                let before = router.tcx("lan0", TcAttachType::Ingress);
                drop(router.attach(attach, "cable0"));
                assert_eq!(router.programs("cable0"), one_each(attach));
                if attach == Attach::Tcx {
                    assert_ne!(router.tcx("lan0", TcAttachType::Ingress), before, "the old program");
                }
                takeovers += 1;
            }
        });
        router.wait_for(PACKETS);
        assert_eq!(router.counter("marked"), PACKETS, "{attach:?}");
    }
}

#[test]
fn a_daemon_with_the_other_way_to_attach_leaves_one_program_on_each_hook() {
    if !ready() {
        return;
    }
    let router = Router::new();
    for attach in [Attach::Tcx, Attach::Clsact, Attach::Tcx] {
        drop(router.attach(attach, "cable0"));
        assert_eq!(router.programs("cable0"), one_each(attach), "{attach:?}");
        assert_eq!(router.marked_of(10), 20, "{attach:?}");
    }
}

#[test]
fn a_device_that_is_gone_and_back_has_programs_again() {
    if !ready() {
        return;
    }
    for attach in BOTH {
        let router = Router::new();
        let mut datapath = router.attach(attach, "dsl0");
        let lan = router.attachment("lan0", Role::Lan);
        let links =
            || router.lab.router().run(|| std::fs::read_dir(Pins::of("main").links()).unwrap().count());
        let old = router.attachment("dsl0", Role::Isp);
        router.lab.unplug("DSL").unwrap();
        let errors = router.lab.router().run(|| datapath.attach(&BTreeSet::from([lan.clone()])));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(links(), if attach == Attach::Tcx { 2 } else { 0 });
        router.lab.plug("DSL").unwrap();
        let new = router.attachment("dsl0", Role::Isp);
        assert_ne!(new, old);
        let errors = router.lab.router().run(|| datapath.attach(&BTreeSet::from([lan, new])));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(router.programs("dsl0"), one_each(attach));
        assert_eq!(links(), if attach == Attach::Tcx { 4 } else { 0 });
    }
}

#[test]
fn a_prefix_that_becomes_local_is_left_alone_at_once_by_flows_that_are_known() {
    if !ready() {
        return;
    }
    let router = Router::new();
    let datapath = router.attach(Attach::Auto, "cable0");
    let mut maps: Maps = router.lab.router().run(|| datapath.maps().unwrap());
    let flow = router.lab.lan().run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    flow.connect(internet(Family::V4, SINK_PORT)).unwrap();
    let mut sent = 0;
    let mut marked = 0;
    for (local, is_marked) in [(&[][..], true), (&["203.0.113.0/24"], false), (&[], true)] {
        router.lab.router().run(|| maps.apply(&Router::plan(local)).unwrap());
        for _ in 0..5 {
            flow.send(&[0; 8]).unwrap();
            sent += 1;
            marked += u64::from(is_marked);
        }
        router.wait_for(sent);
        assert_eq!(router.counter("marked"), marked, "{local:?}");
    }
}
