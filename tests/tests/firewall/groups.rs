//! Who may open connections to whom.

use std::net::SocketAddr;

use balance_lab::addresses::{INTERNET_V4, SERVER_PORT, lan_host};
use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, KINDS, Office, Transport, open_new_flows, ready};

use crate::scene::{FORWARDED, NEVER, PORTS, Scene, is_dropped, is_open};

#[test]
fn groups_say_who_may_open_connections_to_whom() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (lab, office) = (&scene.lab, scene.office.host());
    let daemon = scene.start("groups = [[\"LAN\", \":isp\"], [\"OFFICE\", \"DSL\"]]");
    let lans_are_apart = || {
        for (transport, family) in KINDS {
            let before = scene.count("to_others");
            is_dropped(lab.lan(), Office::address(family), PORTS[0], transport);
            is_dropped(office, lan_host(0, family), PORTS[0], transport);
            assert!(scene.count("to_others") - before >= 2);
        }
    };
    lans_are_apart();
    for (transport, family) in KINDS {
        let answers = open_new_flows(lab.lan(), 40, transport, family).unwrap().ask(SOON);
        assert!(lab.isps_of(&answers).iter().all(Option::is_some), "{answers:?}");
        // The office has only the one ISP; what is steered to the other is dropped.
        let answers = open_new_flows(office, 40, transport, family).unwrap().ask(NEVER);
        let used: Vec<&str> = lab.isps_of(&answers).into_iter().flatten().collect();
        assert!(!used.is_empty() && used.len() < 40 && used.iter().all(|isp| *isp == "DSL"), "{used:?}");
        // A forward is open to everybody.
        is_open(office, lab.isp("CABLE").address(family), FORWARDED, transport);
    }

    let mut flow = None;
    for groups in ["[[\":lan\"], [\":lan\", \":isp\"]]", "[[\"office\", \"lan\"]]"] {
        scene.reload(&daemon, &scene.config(&format!("groups = {groups}")));
        for (transport, family) in KINDS {
            is_open(lab.lan(), Office::address(family), PORTS[0], transport);
            is_open(office, lan_host(0, family), PORTS[0], transport);
        }
        let to = SocketAddr::new(Office::address(Family::V4), PORTS[0]);
        flow = Some(Flow::open_to(lab.lan(), Transport::Tcp, to, SOON).unwrap());
    }
    is_dropped(office, INTERNET_V4.into(), SERVER_PORT, Transport::Tcp);
    scene.reload(&daemon, &scene.config("groups = [[\"LAN\", \":isp\"], [\"OFFICE\", \":isp\"]]"));
    lans_are_apart();
    flow.unwrap().ask().expect("a connection that exists goes on");
}
