//! `flush`: the fast path forgets, and no flow notices.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use balance_lab::checks::{balancing, field};
use balance_lab::{Daemon, Family, Flows, Lab, Transport, open_flows, ready, wait_until};

const SOON: Duration = Duration::from_secs(5);
const FLOWS: usize = 60;
/// No lease ends while a test runs, so only what is flushed gets slow.
const LONG_LEASES: &str = "acceleration = \"tc\"\nfast_path.lease = \"1m\"\n";
const ISPS: [&str; 2] = ["CABLE", "DSL"];

/// UDP flows of both families, and how many of them each ISP has.
struct Crowd {
    lab: Lab,
    flows: [Flows; 2],
    by_isp: BTreeMap<String, u64>,
}

impl Crowd {
    /// All of them are fast.
    fn fast() -> (Self, Daemon) {
        let (lab, daemon) = balancing(LONG_LEASES).unwrap();
        let flows = [Family::V4, Family::V6];
        let flows = flows.map(|family| open_flows(lab.lan(), FLOWS, Transport::Udp, family).unwrap());
        let mut crowd = Self { lab, flows, by_isp: BTreeMap::new() };
        crowd.ask();
        assert_eq!(crowd.by_isp.len(), ISPS.len(), "{:?}", crowd.by_isp);
        crowd.get_fast();
        (crowd, daemon)
    }

    /// Asks by every flow, each of which must use the ISP that it always has. By ISP, how many packets went fast.
    fn ask(&mut self) -> BTreeMap<String, u64> {
        let before = self.counts("fast_packets");
        let mut by_isp = BTreeMap::new();
        for flows in &mut self.flows {
            for isp in self.lab.isps_of(&flows.ask(SOON)) {
                *by_isp.entry(isp.expect("every flow is answered").to_owned()).or_default() += 1;
            }
        }
        if !self.by_isp.is_empty() {
            assert_eq!(by_isp, self.by_isp);
        }
        self.by_isp = by_isp;
        let after = self.counts("fast_packets");
        after.into_iter().map(|(isp, count)| (isp.clone(), count - before[&isp])).collect()
    }

    /// Asks until every question and every answer goes fast.
    fn get_fast(&mut self) {
        wait_until(SOON, "all flows being fast", || self.ask() == self.all_packets()).unwrap();
        assert_eq!(self.counts("fast_flows"), self.by_isp);
    }

    /// By ISP, how many packets it takes to ask once by every flow: as many as these flows have entries.
    fn all_packets(&self) -> BTreeMap<String, u64> {
        self.by_isp.iter().map(|(isp, flows)| (isp.clone(), 2 * flows)).collect()
    }

    /// What `status` counts, by ISP.
    fn counts(&self, what: &str) -> BTreeMap<String, u64> {
        let values = field(&self.lab.status().unwrap(), what).into_iter();
        values.map(|(isp, value)| (isp, value.as_u64().unwrap())).collect()
    }

    /// Flushes, and looks whether the flows of these ISPs get slow for a moment, and no others.
    fn flush(&mut self, name: Option<&str>) {
        let command: Vec<&str> = ["flush"].into_iter().chain(name).collect();
        let said = self.lab.balance_ok(&command).unwrap();
        let is_meant = |isp: &str| name.is_none_or(|name| name.eq_ignore_ascii_case(isp));
        let mut expected = self.all_packets();
        let dropped: u64 = expected.iter().filter(|(isp, _)| is_meant(isp)).map(|(_, entries)| entries).sum();
        let of = name.map(|name| format!(" of {name}")).unwrap_or_default();
        assert_eq!(said, format!("dropped {dropped} entries{of} of the flow cache\n"));

        expected.iter_mut().filter(|(isp, _)| is_meant(isp)).for_each(|(_, packets)| *packets = 0);
        let fast_flows = self.counts("fast_flows").into_iter().map(|(isp, flows)| (isp, 2 * flows));
        assert_eq!(fast_flows.collect::<BTreeMap<_, _>>(), expected);
        assert_eq!(self.ask(), expected);
        self.get_fast();
    }
}

#[test]
fn the_flows_of_one_isp_or_all_are_slow_for_a_moment_and_then_fast_again() {
    if !ready() {
        return;
    }
    let (mut crowd, _daemon) = Crowd::fast();
    crowd.flush(Some("CABLE"));
    crowd.flush(Some("dsl"));
    crowd.flush(None);
}

#[test]
fn it_works_without_the_daemon() {
    if !ready() {
        return;
    }
    let (mut crowd, daemon) = Crowd::fast();
    daemon.kill9().unwrap();
    crowd.flush(Some("CABLE"));
    crowd.flush(None);
    let refused = crowd.lab.balance(&["flush", "NONE"]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert_eq!(refused.stderr, "error: there is no ISP NONE; there are CABLE, DSL\n");
    crowd.flush(Some("DSL"));
}

#[test]
fn where_nothing_is_fast_there_is_nothing_to_drop() {
    if !ready() {
        return;
    }
    let bare = Lab::new().unwrap();
    let refused = bare.balance(&["flush"]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("does not balance here"), "{refused:?}");

    let (lab, _daemon) = balancing("acceleration = \"off\"").unwrap();
    let mut flows = open_flows(lab.lan(), 20, Transport::Udp, Family::V4).unwrap();
    for _ in 0..3 {
        assert!(flows.ask(SOON).iter().all(Result::is_ok));
    }
    assert_eq!(lab.balance_ok(&["flush"]).unwrap(), "dropped 0 entries of the flow cache\n");
    assert!(field(&lab.status().unwrap(), "fast_flows").values().all(|flows| *flows == 0));
}
