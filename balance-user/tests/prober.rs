//! The prober on real packets: a router with two ISPs that both own the same target.
//!
//! Needs root, in network namespaces of its own, one set a test.
#![cfg(test)]

use std::fs;
use std::future::Future;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balance_common::{Family, IspId};
use balance_lab::Host;
use balance_user::core::health::Probe;
use balance_user::core::plan::ProberPlan;
use balance_user::monitor::{Failure, Outcome, Prober};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

/// Long enough for a loaded machine; nothing waits so long that is not lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// For probes that will be lost.
const SHORT: Duration = Duration::from_millis(300);

/// A machine of the lab.
struct Namespace(Host);

impl Namespace {
    fn new() -> Self {
        Self(Host::new("test").unwrap())
    }

    /// Runs this in a thread in the namespace.
    fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.0.run(run)
    }

    fn ip(&self, arguments: &str) {
        self.0.sh(&format!("ip {arguments}")).unwrap();
    }

    fn sysctl(&self, key: &str, value: &str) {
        self.within(|| fs::write(format!("/proc/sys/{key}"), value).unwrap());
    }

    /// One of the kernel's counters for ICMP.
    fn icmp(&self, counter: &str) -> u64 {
        self.within(|| {
            let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
            let mut lines = text.lines().filter(|line| line.starts_with("Icmp:"));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let column = names.split_whitespace().position(|name| name == counter).unwrap();
            values.split_whitespace().nth(column).unwrap().parse().unwrap()
        })
    }

    /// How many echo requests have arrived here.
    fn echo_requests(&self, family: Family) -> u64 {
        match family {
            Family::V4 => self.icmp("InEchos"),
            Family::V6 => self.within(|| {
                let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
                let line = text.lines().find(|line| line.starts_with("Icmp6InEchos ")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            }),
        }
    }
}

/// A router with two ISPs, `wan1` and `wan2`.
struct Lab {
    router: Namespace,
    isps: [Namespace; 2],
}

impl Lab {
    fn new() -> Self {
        let lab = Self { router: Namespace::new(), isps: [Namespace::new(), Namespace::new()] };
        for (n, isp) in (1..).zip(&lab.isps) {
            // No answer to ARP for the target: without the mark its probes would not get through.
            isp.sysctl("net/ipv4/conf/all/arp_ignore", "1");
            isp.sysctl("net/ipv4/ip_forward", "1");
            isp.sysctl("net/ipv6/conf/all/forwarding", "1");
            isp.ip(&format!("link add eth0 type veth peer name wan{n} netns {}", lab.router.0.netns()));
            isp.ip("link set eth0 up");
            isp.ip(&format!("addr add 10.0.{n}.1/24 dev eth0"));
            isp.ip(&format!("addr add fd00:{n}::1/64 dev eth0 nodad"));
            isp.ip("addr add 192.0.2.1/32 dev lo");
            isp.ip("addr add 2001:db8::1/128 dev lo nodad");
            isp.ip("route add blackhole 192.0.2.99");
            isp.ip("route add blackhole 2001:db8::99");
            isp.ip("route add unreachable 192.0.2.66");
            isp.ip("route add unreachable 2001:db8::66");
            lab.router.ip(&format!("link set wan{n} up"));
            lab.router.ip(&format!("addr add 10.0.{n}.2/24 dev wan{n}"));
            lab.router.ip(&format!("addr add fd00:{n}::2/64 dev wan{n} nodad"));
            lab.router.ip(&format!("route add default via 10.0.{n}.1 dev wan{n} table {}", 1000 + n));
            lab.router.ip(&format!("route add default via fd00:{n}::1 dev wan{n} table {}", 1000 + n));
            for family in ["-4", "-6"] {
                lab.router.ip(&format!("{family} rule add fwmark {:#x}/0x3f00 table {}", n << 8, 1000 + n));
            }
        }
        lab
    }

    /// A prober for `wan1` or `wan2`. To be called in the router.
    fn prober(n: u8, family: Family, outcomes: &mpsc::Sender<Outcome>) -> Prober {
        Self::prober_with(n, family, None, outcomes)
    }

    fn prober_with(
        n: u8,
        family: Family,
        gateway: Option<IpAddr>,
        outcomes: &mpsc::Sender<Outcome>,
    ) -> Prober {
        let index = nix::net::if_::if_nametoindex(format!("wan{n}").as_str()).unwrap();
        let plan = ProberPlan { index, mark: u32::from(n) << 8, gateway, resolvers: Vec::new() };
        Prober::new(IspId::new(n).unwrap(), family, &plan, outcomes.clone()).unwrap()
    }

    /// From now on that ISP drops everything for the target.
    fn kill(&self, n: usize) {
        for (net, length) in [("192.0.2.1", "32"), ("2001:db8::1", "128")] {
            self.isps[n - 1].ip(&format!("addr del {net}/{length} dev lo"));
            self.isps[n - 1].ip(&format!("route add blackhole {net}"));
        }
    }
}

/// Runs a test in the router of a lab; or says that it was skipped.
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Arc<Lab>) -> F + Send) {
    if !balance_lab::ready() {
        return;
    }
    let lab = Arc::new(Lab::new());
    lab.router.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Arc::clone(&lab)));
    });
}

fn target(family: Family, last: &str) -> IpAddr {
    match family {
        Family::V4 => format!("192.0.2.{last}").parse().unwrap(),
        Family::V6 => format!("2001:db8::{last}").parse().unwrap(),
    }
}

fn probe(target: IpAddr, sequence: u64, patience: Duration) -> Probe {
    Probe { target: target.into(), sequence, patience }
}

async fn outcome(outcomes: &mut mpsc::Receiver<Outcome>) -> Outcome {
    tokio::time::timeout(PATIENCE * 2, outcomes.recv()).await.unwrap().unwrap()
}

#[test]
fn a_probe_leaves_by_its_own_isp_and_its_answer_is_timed() {
    in_lab(|lab| async move {
        for family in Family::ALL {
            for n in [1, 2] {
                let before = [0, 1].map(|isp: usize| lab.isps[isp].echo_requests(family));
                let (tx, mut rx) = mpsc::channel(8);
                let mut prober = Lab::prober(n, family, &tx);
                let start = Instant::now();
                prober.send(probe(target(family, "1"), 7, PATIENCE));
                let outcome = outcome(&mut rx).await;
                assert_eq!((outcome.isp.get(), outcome.family, outcome.sequence), (n, family, 7));
                let rtt = outcome.result.unwrap();
                assert!(rtt > Duration::ZERO && rtt <= start.elapsed(), "{rtt:?}");
                let arrived = [0, 1].map(|isp: usize| lab.isps[isp].echo_requests(family) - before[isp]);
                assert_eq!(arrived, if n == 1 { [1, 0] } else { [0, 1] }, "{family:?}");
            }
        }
    });
}

#[test]
fn a_target_that_is_dead_gives_no_answer_after_the_given_time() {
    in_lab(|_lab| async move {
        for family in Family::ALL {
            let (tx, mut rx) = mpsc::channel(8);
            let mut prober = Lab::prober(1, family, &tx);
            let start = Instant::now();
            prober.send(probe(target(family, "99"), 1, SHORT));
            let outcome = outcome(&mut rx).await;
            assert!(matches!(outcome.result, Err(Failure::NoAnswer)), "{:?}", outcome.result);
            assert!(start.elapsed() >= SHORT);
        }
    });
}

#[test]
fn an_icmp_error_is_no_answer_but_known_at_once() {
    in_lab(|_lab| async move {
        for family in Family::ALL {
            let (tx, mut rx) = mpsc::channel(8);
            let mut prober = Lab::prober(2, family, &tx);
            prober.send(probe(target(family, "66"), 1, PATIENCE));
            let error = outcome(&mut rx).await.result.unwrap_err();
            let Failure::Rejected { from, .. } = &error else { panic!("{error}") };
            assert_eq!(from.is_ipv4(), family == Family::V4);
            assert!(error.to_string().ends_with("unreachable"), "{error}");
        }
    });
}

#[test]
fn two_isps_with_the_same_target_do_not_hear_each_others_answers() {
    in_lab(|lab| async move {
        lab.kill(1);
        for family in Family::ALL {
            let (tx, mut rx) = mpsc::channel(64);
            let mut probers = [Lab::prober(1, family, &tx), Lab::prober(2, family, &tx)];
            for sequence in 0..20 {
                for (prober, patience) in probers.iter_mut().zip([SHORT, PATIENCE]) {
                    prober.send(probe(target(family, "1"), sequence, patience));
                }
            }
            let mut answered = Vec::new();
            for _ in 0..40 {
                let outcome = outcome(&mut rx).await;
                match outcome.isp.get() {
                    1 => assert!(matches!(outcome.result, Err(Failure::NoAnswer)), "{:?}", outcome.result),
                    _ => answered.push(outcome.result.map(|_| outcome.sequence).unwrap()),
                }
            }
            answered.sort_unstable();
            assert_eq!(answered, (0..20).collect::<Vec<_>>());
        }
    });
}

/// Why it does not matter if two probers use the same numbers.
#[test]
fn a_socket_of_one_device_does_not_even_see_the_answers_on_another() {
    in_lab(|_lab| async move {
        let listeners = [1, 2].map(|n| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            socket.bind_device(Some(format!("wan{n}").as_bytes())).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let (tx, mut rx) = mpsc::channel(8);
        let mut prober = Lab::prober(2, Family::V4, &tx);
        prober.send(probe(target(Family::V4, "1"), 0, PATIENCE));
        assert!(outcome(&mut rx).await.result.is_ok());
        let heard = listeners.map(|mut socket| socket.read(&mut [0; 100]).is_ok());
        assert_eq!(heard, [false, true]);
    });
}

#[test]
fn a_redirect_that_quotes_a_probe_is_not_its_outcome() {
    in_lab(|lab| async move {
        // Back to where it came from: the ISP's router tells ours that there is a shorter way.
        lab.isps[0].ip("route add 192.0.2.50 via 10.0.1.2");
        let (tx, mut rx) = mpsc::channel(8);
        let mut prober = Lab::prober(1, Family::V4, &tx);
        prober.send(probe(target(Family::V4, "50"), 0, SHORT));
        let outcome = outcome(&mut rx).await;
        assert!(matches!(outcome.result, Err(Failure::NoAnswer)), "{outcome:?}");
        assert!(lab.router.icmp("InRedirects") > 0, "the redirect has arrived");
    });
}

#[test]
fn killing_one_isp_does_not_touch_the_probes_of_the_other() {
    in_lab(|lab| async move {
        let (tx, mut rx) = mpsc::channel(64);
        let mut probers = Vec::new();
        for family in Family::ALL {
            probers.extend([1, 2].map(|n| (n, family, Lab::prober(n, family, &tx))));
        }
        for (_, family, prober) in &mut probers {
            prober.send(probe(target(*family, "1"), 0, PATIENCE));
        }
        for _ in &probers {
            let outcome = outcome(&mut rx).await;
            assert!(outcome.result.is_ok(), "{outcome:?}");
        }
        lab.isps[0].ip("link set eth0 down");
        for sequence in 1..10 {
            for (n, family, prober) in &mut probers {
                let patience = if *n == 1 { SHORT } else { PATIENCE };
                prober.send(probe(target(*family, "1"), sequence, patience));
            }
        }
        for _ in 0..9 * probers.len() {
            let outcome = outcome(&mut rx).await;
            assert_eq!(outcome.result.is_ok(), outcome.isp.get() == 2, "{outcome:?}");
        }
    });
}

#[test]
fn the_gateway_is_asked_for_its_hardware_address_where_there_is_one() {
    in_lab(|lab| async move {
        let (tx, mut rx) = mpsc::channel(8);
        let ask = |patience| Probe { target: "gateway".parse().unwrap(), sequence: 3, patience };
        for (family, gateway) in [(Family::V4, "10.0.1.1"), (Family::V6, "fd00:1::1")] {
            let mut prober = Lab::prober_with(1, family, gateway.parse().ok(), &tx);
            // The second time the gateway's address is known.
            for _ in 0..2 {
                prober.send(ask(PATIENCE));
                let outcome = outcome(&mut rx).await;
                assert!(outcome.result.is_ok(), "{outcome:?}");
            }
            let mut nowhere = Lab::prober_with(1, family, None, &tx);
            nowhere.send(ask(PATIENCE));
            let nobody = outcome(&mut rx).await.result.unwrap_err();
            assert!(matches!(nobody, Failure::Inapplicable(_)), "{nobody}");
        }
        // The kernel knows nothing of all that.
        let known = lab.router.0.sh("ip neigh show dev wan1 nud reachable").unwrap();
        assert_eq!(known, "");
        // Another machine than the one before, which cannot be known.
        let mut prober = Lab::prober_with(1, Family::V4, "10.0.1.1".parse().ok(), &tx);
        prober.send(ask(PATIENCE));
        assert!(outcome(&mut rx).await.result.is_ok());
        lab.isps[0].ip("link set eth0 address 02:00:00:00:00:77");
        prober.send(ask(SHORT));
        assert!(matches!(outcome(&mut rx).await.result, Err(Failure::NoAnswer)));
        prober.send(ask(PATIENCE));
        assert!(outcome(&mut rx).await.result.is_ok(), "then everybody is asked");
    });
}

#[test]
fn a_device_that_is_gone_is_an_error_of_sending() {
    in_lab(|lab| async move {
        for family in Family::ALL {
            let (tx, mut rx) = mpsc::channel(8);
            let n = if family == Family::V4 { 1 } else { 2 };
            let mut prober = Lab::prober(n, family, &tx);
            lab.router.ip(&format!("link del wan{n}"));
            prober.send(probe(target(family, "1"), 1, PATIENCE));
            let error = outcome(&mut rx).await.result.unwrap_err();
            assert!(matches!(error, Failure::Send(_)), "{error}");
        }
        let (tx, _rx) = mpsc::channel(8);
        let plan = ProberPlan { index: 0, mark: 0x100, gateway: None, resolvers: Vec::new() };
        assert!(Prober::new(IspId::new(1).unwrap(), Family::V4, &plan, tx).is_err());
    });
}

#[test]
fn a_prober_that_is_dropped_leaves_no_task_behind() {
    in_lab(|_lab| async move {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let (tx, mut rx) = mpsc::channel(8);
        let mut prober = Lab::prober(1, Family::V4, &tx);
        for sequence in 0..5 {
            prober.send(probe(target(Family::V4, "99"), sequence, PATIENCE * 100));
        }
        prober.send(probe(target(Family::V4, "1"), 5, PATIENCE));
        assert_eq!(outcome(&mut rx).await.sequence, 5);
        assert!(tasks() >= 5);
        drop(prober);
        tokio::time::timeout(PATIENCE, async {
            while tasks() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(rx.try_recv().is_err(), "there are no outcomes of a prober that is gone");
    });
}
