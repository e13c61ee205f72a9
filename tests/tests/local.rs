//! The traffic of the router itself, and of a host that is no router: shared like that of a LAN, socket by socket.
#![cfg(test)]

use std::time::Duration;

use balance_lab::{Daemon, Family, Flows, Lab, Transport, open_flows, ready};

const SOON: Duration = Duration::from_secs(5);
const KINDS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// A host with two ISPs and nobody behind it.
fn standalone() -> (Lab, Daemon) {
    let lab = Lab::builder().lan_hosts(0).build().unwrap();
    let config = lab.config();
    lab.write_config(config.split("[[lan]]").next().unwrap()).unwrap();
    let daemon = lab.start_up().unwrap();
    (lab, daemon)
}

fn open(lab: &Lab, count: usize, transport: Transport, family: Family) -> Flows {
    open_flows(lab.router(), count, transport, family).unwrap()
}

/// How many of the flows go by CABLE; all must be answered, with the address of their ISP's device.
fn by_cable(lab: &Lab, flows: &mut Flows, family: Family) -> usize {
    let answers = flows.ask(SOON);
    let names = lab.isps_of(&answers);
    for (name, answer) in names.iter().zip(&answers) {
        let name = name.unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(*answer.as_ref().unwrap(), lab.isp(name).address(family));
    }
    names.iter().filter(|name| **name == Some("CABLE")).count()
}

#[test]
fn connections_of_a_standalone_host_are_shared_by_weight_and_stay() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = standalone();
    assert_eq!(lab.status().unwrap()["local_traffic"]["kind"], "sockets");
    for (transport, family) in KINDS {
        let mut flows = open(&lab, 2_000, transport, family);
        let cable = by_cable(&lab, &mut flows, family);
        // 1,500; one deviation is 19.
        assert!((1_400..=1_600).contains(&cable), "{transport:?} {family:?}: CABLE has {cable} of 2,000");
        assert_eq!(by_cable(&lab, &mut flows, family), cable);
    }
}
