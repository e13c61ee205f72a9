//! Flows are shared by weight and stay where they are: ten thousand of them, over TCP and UDP, IPv4 and IPv6.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use balance_common::layout::Verdict;
use balance_lab::{Family, Flows, Isp, KINDS, Lab, Transport, open_flows, ready};
use balance_user::datapath::{Maps, Pins};

const SOON: Duration = Duration::from_secs(5);
const FLOWS_OF_A_KIND: usize = 2_500;

/// Flows, and the ISP that each used at first.
struct Crowd<'a> {
    family: Family,
    flows: Flows,
    isps: Vec<Option<&'a str>>,
}

impl<'a> Crowd<'a> {
    fn open(lab: &'a Lab, transport: Transport, family: Family) -> Self {
        let mut flows = open_flows(lab.lan(), FLOWS_OF_A_KIND, transport, family).unwrap();
        let answers = flows.ask(SOON);
        let isps = lab.isps_of(&answers);
        for (answer, isp) in answers.iter().zip(&isps) {
            let isp = isp.unwrap_or_else(|| panic!("{transport:?} {family:?}: {answer:?}"));
            assert_eq!(*answer.as_ref().unwrap(), lab.isp(isp).address(family));
        }
        Self { family, flows, isps }
    }

    fn stays(&mut self, lab: &Lab) {
        assert_eq!(lab.isps_of(&self.flows.ask(SOON)), self.isps);
    }

    fn of(&self, isp: &str) -> usize {
        self.isps.iter().filter(|it| **it == Some(isp)).count()
    }
}

fn foreign(isp: &Isp) -> u64 {
    isp.forwarded().unwrap().foreign
}

fn all_stay(crowds: &mut [Crowd<'_>], lab: &Lab) {
    for crowd in crowds {
        crowd.stays(lab);
    }
}

#[test]
fn ten_thousand_flows_are_shared_by_weight_and_each_stays_on_its_isp() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut crowds: Vec<Crowd<'_>> = Vec::new();
    for (transport, family) in KINDS {
        crowds.push(Crowd::open(&lab, transport, family));
        // The older ones are asked again while the run goes on.
        all_stay(&mut crowds, &lab);
    }

    let all = |isp: &str| crowds.iter().map(|crowd| crowd.of(isp)).sum::<usize>();
    let (cable, dsl) = (all("CABLE"), all("DSL"));
    assert_eq!(cable + dsl, 10_000);
    assert!((7_350..=7_650).contains(&cable), "CABLE has {cable} of 10,000");
    for family in [Family::V4, Family::V6] {
        let of_family = crowds.iter().filter(|crowd| crowd.family == family);
        let cable: usize = of_family.map(|crowd| crowd.of("CABLE")).sum();
        assert!((3_600..=3_900).contains(&cable), "CABLE has {cable} of 5,000 over {family:?}");
    }
    for (isp, flows) in [("CABLE", cable), ("DSL", dsl)] {
        check_report(&lab, isp, flows as u64);
    }
    let verdict = |verdict| maps(&lab, |maps| maps.verdict(verdict).unwrap().packets);
    assert!(verdict(Verdict::Steered) >= 10_000);
    assert_eq!((verdict(Verdict::NoIsp), verdict(Verdict::Unparsable)), (0, 0));

    lab.balance_ok(&["set-weight", "CABLE", "1"]).unwrap();
    all_stay(&mut crowds, &lab);
    lab.balance_ok(&["set-weight", "DSL", "1000"]).unwrap();
    all_stay(&mut crowds, &lab);
    for isp in lab.isps() {
        assert_eq!(foreign(isp), 0, "{}", isp.name());
    }
}

/// What is told of an ISP that has so many flows, each of which asked at least twice.
fn check_report(lab: &Lab, name: &str, flows: u64) {
    let isp = lab.isp_status(name).unwrap();
    let number = |key: &str| isp[key].as_u64().unwrap_or_else(|| panic!("{key} in {isp:#}"));
    // Conntrack also has the probes of this ISP, one flow for each target, and those of sockets long closed.
    assert!((flows..flows + 50).contains(&number("flows")), "{flows} flows, but {isp:#}");
    assert!(number("tx_packets") >= 2 * flows && number("rx_packets") >= 2 * flows, "{isp:#}");
    assert!(number("tx_bytes") > 28 * number("tx_packets"), "{isp:#}");
    let share = isp["share"].as_f64().unwrap();
    let expected = if name == "CABLE" { 0.75 } else { 0.25 };
    assert!((share - expected).abs() < 0.001, "{isp:#}");

    let counters = maps(lab, |maps| {
        let isps = maps.isps().unwrap();
        let (id, _) = isps.iter().find(|(_, entry)| entry.name() == name).unwrap();
        maps.counters(*id).unwrap()
    });
    assert_eq!(counters.new_flows, flows, "{counters:?}");
    assert!(counters.steered.packets >= 2 * flows && counters.tx.packets >= counters.steered.packets);
}

fn maps<T: Send>(lab: &Lab, read: impl FnOnce(&Maps) -> T + Send) -> T {
    lab.router().run(|| read(&Maps::open(&Pins::of("main")).unwrap()))
}

#[test]
fn equal_weights_and_three_isps_share_equally() {
    if !ready() {
        return;
    }
    let builder = ["ONE", "TWO", "THREE"].into_iter().map(balance_lab::IspSpec::new);
    let lab = builder.fold(Lab::builder(), balance_lab::Builder::isp).build().unwrap();
    let _daemon = lab.start_up().unwrap();
    let crowd = Crowd::open(&lab, Transport::Udp, Family::V4);
    let counts: BTreeMap<&str, usize> =
        lab.isps().iter().map(|isp| (isp.name(), crowd.of(isp.name()))).collect();
    // 833 each; one deviation is 24.
    assert!(counts.values().all(|count| (720..=946).contains(count)), "{counts:?}");
}
