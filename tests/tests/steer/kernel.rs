//! The programs in the kernel, and what the host expects of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balance_common::layout::{BucketTable, Count, IspCounters, Verdict};
use balance_common::packet::{LinkLayer, NoFlow, flow_of};
use balance_common::{Address, Family, Flow, IspId, MarkMask, Member, bucket_of, build_table};
use balance_lab::{Outcome, Steering};
use balance_user::datapath::{Maps, Pins};

pub(crate) const SEED: u64 = 7;
pub(crate) const MASK: u32 = 0x3f00;
/// A mark with bits of others on both sides of ours, and stale ones among ours.
pub(crate) const FOREIGN: u32 = 0xdead_2abe;
/// What hands a packet on to the next program.
pub(crate) const TCX_NEXT: i32 = -1;
/// Every verdict there is.
pub(crate) const VERDICTS: [Verdict; Verdict::COUNT as usize] = [
    Verdict::Steered,
    Verdict::Local,
    Verdict::Unparsable,
    Verdict::NotIp,
    Verdict::NoIsp,
    Verdict::Bypassed,
];

const LOCAL: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// The kernel, set up with four ISPs, and what it should do.
pub(crate) struct Kernel {
    steering: Steering,
    /// As the daemon sees them.
    maps: Maps,
    link_layer: LinkLayer,
    tables: [BucketTable; 2],
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) verdict: Verdict,
    pub(crate) isp: Option<IspId>,
    pub(crate) mark: u32,
}

/// All counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) verdicts: [Count; Verdict::COUNT as usize],
    pub(crate) isps: Vec<IspCounters>,
}

impl Kernel {
    /// With these ISPs' weights in each family; none there is no ISP.
    pub(crate) fn new(weights: [&[u16]; 2]) -> Self {
        let tables = weights.map(table);
        let mut steering = Steering::load().unwrap();
        steering.set_settings(SEED, MASK).unwrap();
        steering.add_local(&LOCAL).unwrap();
        for (family, table) in Family::ALL.into_iter().zip(tables) {
            steering.set_table(family, table).unwrap();
        }
        let maps = steering.host().run(|| Maps::open(&Pins::of(Steering::INSTANCE)).unwrap());
        let mut kernel = Self { steering, maps, link_layer: LinkLayer::Ethernet, tables };
        kernel.set_device(LinkLayer::Ethernet, 0);
        kernel
    }

    pub(crate) fn set_device(&mut self, link_layer: LinkLayer, isp: u8) {
        self.link_layer = link_layer;
        self.steering.set_device(link_layer, isp).unwrap();
    }

    pub(crate) fn run(&self, program: &str, packet: &[u8], mark: u32) -> anyhow::Result<Outcome> {
        let suffix = if self.link_layer == LinkLayer::Ip { "_ip" } else { "" };
        self.steering.program(&format!("{program}{suffix}"))?.run(packet, mark)
    }

    /// What the host expects of a packet: the same parser, hash and tables, put together another way.
    pub(crate) fn expect(&self, packet: &[u8], mark: u32) -> Fate {
        let left_alone = |verdict| Fate { verdict, isp: None, mark };
        let flow = match flow_of(packet, self.link_layer) {
            Ok(flow) => flow,
            Err(NoFlow::NotIp) => return left_alone(Verdict::NotIp),
            Err(NoFlow::Unparsable) => return left_alone(Verdict::Unparsable),
        };
        if LOCAL.iter().any(|&(network, length)| contains(network, length, flow.destination)) {
            return left_alone(Verdict::Local);
        }
        match self.isp_of(&flow) {
            None => left_alone(Verdict::NoIsp),
            Some(isp) => {
                let mark = mark & !MASK | u32::from(isp.get()) << 8;
                assert_eq!(MarkMask::new(MASK).unwrap().isp(mark), Some(isp));
                Fate { verdict: Verdict::Steered, isp: Some(isp), mark }
            }
        }
    }

    pub(crate) fn isp_of(&self, flow: &Flow) -> Option<IspId> {
        IspId::new(self.tables[flow.family as usize][bucket_of(flow.hash(SEED))])
    }

    pub(crate) fn counters(&self) -> Counters {
        let isps = IspId::all().map(|isp| self.maps.counters(isp).unwrap()).collect();
        Counters { verdicts: self.verdicts(), isps }
    }

    pub(crate) fn verdicts(&self) -> [Count; Verdict::COUNT as usize] {
        VERDICTS.map(|verdict| self.maps.verdict(verdict).unwrap())
    }
}

impl Counters {
    pub(crate) fn isp(&mut self, isp: IspId) -> &mut IspCounters {
        &mut self.isps[usize::from(isp.get()) - 1]
    }

    /// Counts a packet from a LAN.
    pub(crate) fn add(&mut self, fate: Fate, bytes: usize, is_new: bool) {
        add(&mut self.verdicts[fate.verdict as usize], bytes);
        if let Some(isp) = fate.isp {
            let counters = self.isp(isp);
            add(&mut counters.steered, bytes);
            counters.new_flows += u64::from(is_new);
        }
    }
}

/// Counts a packet.
pub(crate) fn add(count: &mut Count, bytes: usize) {
    count.packets += 1;
    count.bytes += bytes as u64;
}

fn table(weights: &[u16]) -> BucketTable {
    let members: Vec<Member> =
        IspId::all().zip(weights).map(|(isp, &weight)| Member { isp, weight }).collect();
    build_table(&members, &[]).bytes()
}

fn contains(network: IpAddr, length: u8, address: Address) -> bool {
    let mapped = if network.is_ipv4() { 96 } else { 0 };
    let differing =
        u128::from_be_bytes(Address::from(network).octets()) ^ u128::from_be_bytes(address.octets());
    differing.leading_zeros() >= mapped + u32::from(length)
}
