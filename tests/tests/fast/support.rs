//! A lab with the fast path running, and what tests ask of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData};
use balance_common::fast::{Entry, Key, V4, V6};
use balance_common::layout::path_index;
use balance_lab::addresses::{SERVER_PORT, internet};
use balance_lab::{Daemon, Family, Flow, Isp, Lab, Transport, ready, wait_until};
use balance_user::datapath::{Maps, Pins};

/// The values of `acceleration` that every test runs with.
const ACCELERATIONS: [&str; 2] = ["tc", "xdp"];
/// The lease, if nothing else is configured.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
/// How much later than it should a thing may be seen on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(1);
/// How long what happens at once may take there.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// How long an answer is waited for where it may not come.
const HASTE: Duration = Duration::from_millis(50);

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Whoever sends more than a core can take makes the kernel drop packets of all labs, which share its queues.
static TRAFFIC: RwLock<()> = RwLock::new(());

/// Runs a test with each kind of acceleration, if it can run here, while nobody floods.
pub(crate) fn with_each(test: impl Fn(&str) + Sync) {
    let _others = in_quiet();
    if ready() {
        std::thread::scope(|scope| {
            for acceleration in ACCELERATIONS {
                let test = &test;
                scope.spawn(move || test(acceleration));
            }
        });
    }
}

/// Runs a test that sends as much as it can, with nothing else beside it. In TC only: a veth device takes 256 frames from
/// XDP and drops what is more, as no device would slow senders down.
pub(crate) fn with_tc_alone(test: impl Fn(&str)) {
    let _alone = TRAFFIC.write().unwrap_or_else(PoisonError::into_inner);
    if ready() {
        test("tc");
    }
}

/// As long as this is kept, nobody floods.
pub(crate) fn in_quiet() -> RwLockReadGuard<'static, ()> {
    TRAFFIC.read().unwrap_or_else(PoisonError::into_inner)
}

/// The config of a lab with this acceleration and these further lines of `[fast_path]`.
pub(crate) fn config(lab: &Lab, acceleration: &str, fast_path: &str) -> String {
    format!(
        "acceleration = \"{acceleration}\"\n{}\n[fast_path]\n{fast_path}\n\n[monitor]\nup_after = \"300ms\"\n",
        lab.config()
    )
}

/// Starts the daemon with such a config; all ISPs are up.
pub(crate) fn start(lab: &Lab, acceleration: &str, fast_path: &str) -> Daemon {
    lab.write_config(&config(lab, acceleration, fast_path)).unwrap();
    lab.start_up().unwrap()
}

/// A lab of two ISPs with its daemon.
pub(crate) fn lab(acceleration: &str) -> (Lab, Daemon) {
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, acceleration, "");
    (lab, daemon)
}

/// Has the daemon read this config and waits until it has.
pub(crate) fn reload(lab: &Lab, daemon: &Daemon, config: &str) {
    daemon.reload(lab, config).unwrap();
}

/// What the programs have counted and hold.
pub(crate) fn maps<T: Send>(lab: &Lab, look: impl FnOnce(&Maps) -> T + Send) -> T {
    lab.router().run(|| look(&Maps::open(&pins()).unwrap()))
}

/// Where the maps are.
pub(crate) fn pins() -> Pins {
    Pins::of("main")
}

/// A field of an ISP's status that counts packets.
pub(crate) fn packets(lab: &Lab, isp: &str, field: &str) -> u64 {
    let status = lab.isp_status(isp).unwrap();
    status[field].as_u64().unwrap_or_else(|| panic!("{field} in {status:#}"))
}

/// How many packets went fast by all ISPs, as `status` has it.
pub(crate) fn fast_packets(lab: &Lab) -> u64 {
    let status = lab.status().unwrap();
    let isps = status["isps"].as_array().unwrap();
    isps.iter().map(|isp| isp["fast_packets"].as_u64().unwrap()).sum()
}

/// How many packets went fast to an ISP and from it, by the programs' own counters.
pub(crate) fn fast_ways(lab: &Lab, isp: &Isp) -> [u64; 2] {
    maps(lab, |maps| {
        let isps = maps.isps().unwrap();
        let (id, _) = isps.iter().find(|(_, entry)| entry.name() == isp.name()).unwrap();
        let counters = maps.counters(*id).unwrap();
        [counters.fast_tx.packets, counters.fast_rx.packets]
    })
}

/// The generations of an ISP's entries of the flow cache in a family.
pub(crate) fn generations(lab: &Lab, isp: &Isp, family: Family) -> [u32; 2] {
    let ids = maps(lab, |maps| maps.isps().unwrap());
    let (id, _) = ids.iter().find(|(_, entry)| entry.name() == isp.name()).unwrap();
    let index = path_index(id.get(), family);
    lab.router().run(|| {
        let map = Map::Array(MapData::from_pin(pins().map("PATHS")).unwrap());
        let paths = aya::maps::Array::<_, balance_common::layout::Path>::try_from(map).unwrap();
        paths.get(&u32::from(index), 0).unwrap().generations
    })
}

/// A flow cache.
pub(crate) type Cache<A> = Vec<(Key<A>, Entry<A>)>;

/// What is in the flow caches.
pub(crate) fn caches(lab: &Lab) -> (Cache<V4>, Cache<V6>) {
    maps(lab, |maps| {
        (maps.flows_v4().map(Result::unwrap).collect(), maps.flows_v6().map(Result::unwrap).collect())
    })
}

/// How many entries the flow caches have for a port of the LAN host, at either end.
pub(crate) fn cached(lab: &Lab, port: u16) -> usize {
    let (v4, v6) = caches(lab);
    let has = |ports: &u32| ports.to_ne_bytes().as_chunks().0.contains(&port.to_be_bytes());
    let v4 = v4.iter().filter(|(key, entry)| has(&key.ports) || has(&entry.ports)).count();
    v4 + v6.iter().filter(|(key, entry)| has(&key.ports) || has(&entry.ports)).count()
}

/// A flow from the LAN host that asks all the time.
pub(crate) struct Live {
    pub(crate) flow: Flow,
    /// What the internet host saw at first.
    pub(crate) source: SocketAddr,
    transport: Transport,
    family: Family,
}

impl Live {
    /// Opens one, by any ISP.
    pub(crate) fn open(lab: &Lab, transport: Transport, family: Family) -> Self {
        Self::open_to(lab, transport, internet(family, SERVER_PORT), family)
    }

    /// Opens one to this server.
    pub(crate) fn open_to(lab: &Lab, transport: Transport, to: SocketAddr, family: Family) -> Self {
        let mut flow = Flow::open_to(lab.lan(), transport, to, SOON).unwrap();
        let source = flow.ask_socket().unwrap();
        Self { flow, source, transport, family }
    }

    /// Opens one that goes by this ISP.
    pub(crate) fn open_by(lab: &Lab, isp: &Isp, transport: Transport, family: Family) -> Self {
        let flows = std::iter::repeat_with(|| Self::open(lab, transport, family));
        flows.take(200).find(|live| live.source.ip() == isp.address(family)).unwrap()
    }

    /// From now on, answers may not come.
    pub(crate) fn hasty(mut self) -> Self {
        self.flow.set_timeout(HASTE);
        self
    }

    /// Asks for so long; how many answers came, and from where the last question was seen to come.
    pub(crate) fn ask_for(&mut self, time: Duration) -> (usize, Option<SocketAddr>) {
        let start = Instant::now();
        let (mut answers, mut last) = (0, None);
        while start.elapsed() < time {
            if let Ok(source) = self.flow.ask_socket() {
                answers += 1;
                last = Some(source);
            }
        }
        (answers, last)
    }

    /// Asks until the outcome is as wanted; how long that took.
    pub(crate) fn ask_until(
        &mut self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(io::Result<SocketAddr>) -> bool,
    ) -> Duration {
        let start = Instant::now();
        wait_until(timeout, &format!("{what}: {self}"), || wanted(self.flow.ask_socket())).unwrap();
        start.elapsed()
    }

    /// Checks that it goes fast: all but a few of its packets. No other flows may run meanwhile.
    pub(crate) fn goes_fast(&mut self, lab: &Lab) {
        let mut counts = Vec::new();
        let is_fast = || {
            let before = fast_packets(lab);
            let answers = (0..20).filter(|_| self.flow.ask().is_ok()).count() as u64;
            let fast = fast_packets(lab) - before;
            counts.push((answers, fast));
            // Questions and answers; and of TCP, what is acknowledged by itself.
            answers == 20 && fast >= 30
        };
        // One round may meet the end of a lease.
        wait_until(SOON, "", is_fast).unwrap_or_else(|_| panic!("{self} is not fast: {counts:?}"));
    }

    /// Checks that the internet host sees it as it did at first.
    pub(crate) fn stays(&mut self) {
        assert_eq!(self.flow.ask_socket().unwrap(), self.source, "{self}");
    }

    /// Has `conntrack` list (`-L`) or delete (`-D`) its entry; what that prints, a line, or nothing.
    pub(crate) fn conntrack(&self, lab: &Lab, what: &str) -> String {
        let (protocol, family) = self.names();
        let port = self.flow.local_address().port();
        lab.router()
            .sh(&format!("conntrack {what} -f {family} -p {protocol} --sport {port} 2>/dev/null || true"))
            .unwrap()
    }

    /// Its protocol and family, as `conntrack` and `nft` call them.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        let protocol = if self.transport == Transport::Tcp { "tcp" } else { "udp" };
        (protocol, if self.family == Family::V4 { "ipv4" } else { "ipv6" })
    }

    /// The ISP it went by at first.
    pub(crate) fn isp<'a>(&self, lab: &'a Lab) -> &'a Isp {
        lab.isp_of(self.source.ip()).unwrap()
    }

    /// One of the lab's other ISPs.
    pub(crate) fn other_isp<'a>(&self, lab: &'a Lab) -> &'a Isp {
        let own = self.isp(lab).name();
        lab.isps().iter().find(|isp| isp.name() != own).unwrap()
    }
}

impl std::fmt::Display for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let local: IpAddr = self.flow.local_address().ip();
        write!(formatter, "{:?} from {local}, seen as {}", self.transport, self.source)
    }
}
