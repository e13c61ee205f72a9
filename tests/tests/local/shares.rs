//! By weight.

use balance_lab::checks::SOON;
use balance_lab::{Family, KINDS, Transport, ready};

use crate::support::{ask, balancing, by_cable, local_traffic, make, open};

#[test]
fn connections_of_a_standalone_host_are_shared_by_weight_and_stay() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    assert_eq!(local_traffic(&lab)["kind"], "sockets");
    for (transport, family) in KINDS {
        let mut flows = open(&lab, 2_000, transport, family);
        let cable = by_cable(&lab, &flows.ask(SOON), family);
        // 1,500; one deviation is 19.
        assert!((1_400..=1_600).contains(&cable), "{transport:?} {family:?}: CABLE has {cable} of 2,000");
        assert_eq!(by_cable(&lab, &flows.ask(SOON), family), cable);
    }
}

#[test]
fn datagrams_of_sockets_that_are_never_connected_are_shared_by_weight_too() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = balancing();
    for family in [Family::V4, Family::V6] {
        let sockets: Vec<_> = (0..400).map(|_| make(lab.router(), Transport::Udp, family)).collect();
        let ask = || sockets.iter().map(|socket| ask(socket, family)).collect::<Vec<_>>();
        let answers = ask();
        let cable = by_cable(&lab, &answers, family);
        // 300; one deviation is 9.
        assert!((255..=345).contains(&cable), "{family:?}: CABLE has {cable} of 400");
        assert_eq!(lab.isps_of(&ask()), lab.isps_of(&answers), "each stays where it was");
    }
}
