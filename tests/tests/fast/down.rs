//! An ISP goes down under flows that go fast.

use balance_lab::{Family, Isp, KINDS, Stream, Transport, wait_until};

use crate::support::{FAMILIES, Live, SOON, fast_ways, generations, lab, with_each};

/// Runs flows by both ISPs, has one die, and checks that from the moment when the daemon takes it for dead no packet goes fast
/// by it, and that those of the other one go on.
fn entries_end_with_their_isp(acceleration: &str, die: impl Fn(&Isp), revive: impl Fn(&Isp)) {
    let (lab, _daemon) = lab(acceleration);
    let [cable, dsl] = ["CABLE", "DSL"].map(|name| lab.isp(name));
    let streams = FAMILIES.map(|family| Stream::start(lab.lan(), 1_000, 40, family).unwrap());
    let grows = |isp: &Isp, by: u64| {
        let before = fast_ways(&lab, isp);
        let both = || fast_ways(&lab, isp).iter().zip(before).all(|(now, before)| now - before >= by);
        wait_until(SOON, &format!("fast packets by {}", isp.name()), both).unwrap();
    };
    grows(cable, 200);
    grows(dsl, 200);
    let mut survivors = KINDS.map(|(transport, family)| Live::open_by(&lab, dsl, transport, family));

    let generations = || FAMILIES.map(|family| generations(&lab, cable, family));
    let before = generations();
    die(cable);
    let void = || generations().iter().zip(before).all(|(now, before)| *now != before);
    wait_until(SOON, "CABLE's entries being void", void).unwrap();
    let at_the_end = fast_ways(&lab, cable);
    grows(dsl, 500);
    lab.wait_state("CABLE", "down").unwrap();
    assert_eq!(fast_ways(&lab, cable), at_the_end);
    for live in &mut survivors {
        live.stays();
    }

    for (stream, family) in streams.into_iter().zip(FAMILIES) {
        let report = stream.stop().unwrap();
        // CABLE's have moved.
        assert!(report.moved > 0 && report.moved < 40, "{family:?}: {report:?}");
    }
    revive(cable);
    lab.wait_up("CABLE").unwrap();
    for (transport, family) in KINDS {
        Live::open_by(&lab, cable, transport, family).goes_fast(&lab);
    }
}

#[test]
fn no_packet_goes_fast_by_an_isp_without_carrier() {
    with_each(|acceleration| {
        let set = |carrier| move |isp: &Isp| isp.set_carrier(carrier).unwrap();
        entries_end_with_their_isp(acceleration, set(false), set(true));
    });
}

#[test]
fn no_packet_goes_fast_by_an_isp_that_is_taken_for_dead() {
    with_each(|acceleration| {
        let die = |isp: &Isp| isp.die_silently().unwrap();
        entries_end_with_their_isp(acceleration, die, |isp| isp.revive().unwrap());
    });
}

#[test]
fn a_device_that_is_replaced_goes_fast_again() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        for (transport, family) in KINDS {
            Live::open_by(&lab, lab.isp("CABLE"), transport, family).goes_fast(&lab);
        }
        lab.unplug("CABLE").unwrap();
        lab.wait_state("CABLE", "down").unwrap();
        lab.plug("CABLE").unwrap();
        lab.wait_up("CABLE").unwrap();
        for (transport, family) in KINDS {
            Live::open_by(&lab, lab.isp("CABLE"), transport, family).goes_fast(&lab);
        }
    });
}

#[test]
fn an_isp_that_dies_in_one_family_stays_fast_in_the_other() {
    with_each(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        let cable = lab.isp("CABLE");
        let mut v6 = Live::open_by(&lab, cable, Transport::Tcp, Family::V6);
        let mut v4 = Live::open_by(&lab, cable, Transport::Udp, Family::V4).hasty();
        v4.goes_fast(&lab);
        drop_v4(cable);
        v4.ask_until("DSL", SOON, |answer| {
            answer.is_ok_and(|seen| seen.ip() == lab.isp("DSL").address(Family::V4))
        });
        v4.goes_fast(&lab);
        v6.goes_fast(&lab);
        v6.stays();
        assert_eq!(lab.isp_of(v6.source.ip()).unwrap().name(), "CABLE");
    });
}

fn drop_v4(isp: &Isp) {
    let rule = "table ip dead {
        chain everything {
            type filter hook prerouting priority 0; policy drop;
        }
    }";
    isp.host().feed("nft", &["-f", "-"], rule).unwrap();
}
