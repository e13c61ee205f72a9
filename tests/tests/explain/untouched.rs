//! The instance does not notice that it is asked.

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use balance_common::layout::{Count, IspCounters, Seen, Verdict};
use balance_common::{IspId, PolicyId};
use balance_lab::addresses::lan_host;
use balance_lab::{Family, Lab, Transport, open_flows, ready};
use balance_user::datapath::{Maps, Pins};

use crate::support::{KINDS, SOON, explain, internet};

/// Everything that the instance counts and remembers, and by what it steers.
fn contents(lab: &Lab) -> Vec<String> {
    lab.router().run(|| {
        let pins = Pins::of("main");
        let open = |name: &str| MapData::from_pin(pins.map(name)).unwrap();
        let counters = PerCpuArray::<_, IspCounters>::try_from(Map::PerCpuArray(open("COUNTERS"))).unwrap();
        let verdicts = PerCpuArray::<_, Count>::try_from(Map::PerCpuArray(open("VERDICTS"))).unwrap();
        let seen = HashMap::<_, u64, Seen>::try_from(Map::LruHashMap(open("SEEN"))).unwrap();
        let maps = Maps::open(&pins).unwrap();
        let mut all: Vec<String> =
            IspId::all().map(|isp| format!("{:?}", &*counters.get(&isp.get().into(), 0).unwrap())).collect();
        all.extend((0..Verdict::COUNT).map(|index| format!("{:?}", &*verdicts.get(&index, 0).unwrap())));
        let mut flows: Vec<String> = seen.iter().map(|entry| format!("{:?}", entry.unwrap())).collect();
        assert!(!flows.is_empty());
        flows.extend(maps.flows_v4().map(|entry| format!("{:?}", entry.unwrap())));
        flows.extend(maps.flows_v6().map(|entry| format!("{:?}", entry.unwrap())));
        flows.sort();
        all.extend(flows);
        all.push(format!("{:?} {:?} {:?}", maps.settings(), maps.isps(), maps.policies()));
        all.push(format!("{:?}", maps.table(PolicyId::DEFAULT, Family::V4)));
        let pinned =
            std::fs::read_dir(pins.folder()).unwrap().map(|pin| format!("{:?}", pin.unwrap().path()));
        let mut pinned: Vec<String> = pinned.collect();
        pinned.sort();
        all.extend(pinned);
        all
    })
}

#[test]
fn a_hundred_questions_leave_counters_and_flows_as_they_were() {
    const BATCHES: usize = 25;
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = lab.start_up().unwrap();
    for (transport, family) in KINDS {
        let answers = open_flows(lab.lan(), 20, transport, family).unwrap().ask(SOON);
        assert!(answers.iter().all(Result::is_ok));
    }
    // Its probes are counted.
    daemon.kill9().unwrap();
    let untouched = |number: &u8| {
        let before = contents(&lab);
        for (transport, family) in KINDS {
            let proto = if transport == Transport::Tcp { "tcp" } else { "udp" };
            let (from, to) = (lan_host(0, family), internet(*number, family).ip());
            explain(&lab, &format!("--from {from} --to {to} --proto {proto} --dport 443 --sport 5000"));
        }
        contents(&lab) == before
    };
    // The machines look for their neighbours now and then, which is counted too; but not all the time.
    let quiet = (0..2 * BATCHES).map(|number| u8::try_from(number).unwrap()).filter(untouched);
    assert_eq!(quiet.take(BATCHES).count(), BATCHES, "asking changes what the instance remembers");
}
