use balance_common::layout::{BucketTable, Verdict};
use balance_common::{BUCKETS, Flow, MAX_ISPS};

use super::steering::{Looked, Selection, expected, flow_of_socket, judged, of_socket};
use super::*;
use crate::control::in_force::{ForwardInForce, MemberInForce, PolicyInForce, RuleInForce};
use crate::datapath::Rehearsed;

const SEED: u64 = 7;
const CABLE: u8 = 1;
const DSL: u8 = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(number: u8) -> IspId {
    IspId::new(number).unwrap()
}

fn mask() -> MarkMask {
    MarkMask::new(0x3f00).unwrap()
}

fn policy_id(number: u8) -> PolicyId {
    PolicyId::new(number).unwrap()
}

fn entry(name: &str, sticky: Sticky, last_resort: u8) -> PolicyEntry {
    let mut entry = PolicyEntry { sticky: sticky as u8, last_resort, ..PolicyEntry::default() };
    entry.name[..name.len()].copy_from_slice(name.as_bytes());
    entry
}

fn isp(name: &str, device: &str) -> IspFacts {
    IspFacts {
        name: name.to_owned(),
        device: device.to_owned(),
        state: State::Up,
        usable: true,
        forced: Forced::No,
        reason: None,
    }
}

fn out(device: &str, table: u32) -> Way {
    Way {
        is_here: false,
        table,
        device: device.to_owned(),
        gateway: Some(ip("192.0.2.1")),
        addresses: [ip("203.0.113.7")].into(),
        hides_behind: Some(ip("203.0.113.7")),
    }
}

fn steered(isp: u8, rule: Option<usize>, policy: u8) -> Steering {
    Steering {
        decision: Decision::Steered(id(isp)),
        mark: mask().value(id(isp)),
        rule,
        policy: Some(policy_id(policy)),
        bucket: Some(1234),
        shares: [(id(CABLE), 0.75), (id(DSL), 0.25)].into(),
        disagreement: None,
    }
}

fn not_steered(decision: Decision, rule: Option<usize>) -> Steering {
    Steering { decision, rule, ..Steering::unreadable() }
}

/// A web page over CABLE, by the third rule.
fn facts() -> Facts {
    let members = ["CABLE", "DSL", "LTE"].map(|isp| MemberInForce {
        isp: isp.to_owned(),
        weight: 1,
        tier: 1 + u8::from(isp == "LTE"),
        carries_enough: None,
    });
    let takers = [vec![(CABLE, 3), (DSL, 1)], vec![(CABLE, 3), (DSL, 1)]];
    let video = PolicyInForce { mode: "balanced".to_owned(), members: members.to_vec(), takers };
    let rule = |text: &str| RuleInForce { line: 41, text: text.to_owned() };
    let in_force = InForce {
        rules: ["to DSL", "to bypass", "port 443; to VIDEO"].map(rule).to_vec(),
        policies: [("VIDEO".to_owned(), video)].into(),
        ..InForce::default()
    };
    Facts {
        question: Question {
            from: Some(ip("192.168.1.10")),
            to: ip("198.51.100.9"),
            protocol: 6,
            source_port: 40_000,
            any_source_port: false,
            port: 443,
            dscp: 0,
            lan: Some(Lan { name: Some("HOME".to_owned()), device: "eth9".to_owned() }),
        },
        mask: mask(),
        table: 1000,
        isps: [
            (id(CABLE), isp("CABLE", "eth1")),
            (id(DSL), isp("DSL", "eth2")),
            (id(3), isp("LTE", "wwan0")),
        ]
        .into(),
        policies: [
            (policy_id(0), entry("default", Sticky::Flow, 0)),
            (policy_id(1), entry("VIDEO", Sticky::Flow, 0)),
            (policy_id(2), entry("DSL", Sticky::Flow, 0)),
        ]
        .into(),
        in_force: Some(in_force),
        steering: steered(CABLE, Some(2), 1),
        live: Ok(None),
        way: Some(Ok(out("eth1", 1001))),
    }
}

fn conclusion(facts: &Facts) -> String {
    explain(facts).conclusion
}

#[test]
fn every_step_has_a_line_and_the_conclusion_is_the_last() {
    // 1234 is a bucket of CABLE's even if all work.
    assert_eq!(facts().home(1234), None);
    let expected = "\
flow    tcp 192.168.1.10:40000 to 198.51.100.9:443, from HOME (eth9)
rule    3 (line 41): port 443; to VIDEO
policy  VIDEO, balanced, sticky by flow: CABLE 75%, DSL 25%, LTE waits in tier 2
bucket  1234 of 4096: CABLE's
ISPs    CABLE up, DSL up, LTE up
mark    0x100 of 0x3f00
route   table 1001 (CABLE): by eth1 to 192.0.2.1
NAT     masqueraded as 203.0.113.7

goes by CABLE (eth1) to 192.0.2.1, seen as 203.0.113.7, because rule 3 leads to policy VIDEO, whose bucket 1234 is CABLE's
";
    assert_eq!(render(&explain(&facts())), expected);
}

#[test]
fn the_json_says_the_same() {
    let told: serde_json::Value = serde_json::from_str(&render_json(&explain(&facts())).unwrap()).unwrap();
    assert_eq!(told["verdict"], "steered");
    assert_eq!(told["isp"], "CABLE");
    assert_eq!(told["rule"]["number"], 3);
    assert_eq!(told["policy"]["shares"]["CABLE"], 0.75);
    assert_eq!(told["bucket"]["number"], 1234);
    assert_eq!(told["nat"], serde_json::json!({ "kind": "masquerade", "seen_as": "203.0.113.7" }));
    assert_eq!(told["route"]["gateway"], "192.0.2.1");
    assert!(told["live"].is_null());
}

#[test]
fn each_way_of_being_steered_or_not_has_its_reason() {
    let local = |text: &str| Decision::Local(Some(text.parse().unwrap()));
    for (steering, reason) in [
        (
            steered(CABLE, None, 0),
            "no rule is about it, so it has policy default, whose bucket 1234 is CABLE's",
        ),
        (steered(CABLE, Some(0), 1), "rule 1 leads to policy VIDEO, whose bucket 1234 is CABLE's"),
        (not_steered(local("198.51.100.0/24"), None), "198.51.100.0/24 is never balanced"),
        (not_steered(Decision::Bypassed, Some(1)), "rule 2 is a bypass, so the routes of the system decide"),
        (
            not_steered(Decision::Unreadable, None),
            "its packets cannot be read, so the routes of the system decide",
        ),
        (not_steered(Decision::LeftAlone("of this"), None), "of this"),
        (
            Steering { policy: Some(policy_id(1)), ..not_steered(Decision::NoIsp, None) },
            "none of the ISPs of policy VIDEO can take it, so the routes of the system decide",
        ),
    ] {
        let said = conclusion(&Facts { steering, ..facts() });
        assert!(said.ends_with(&format!(", because {reason}")), "{said}");
    }
    let to_isp = Facts { steering: steered(DSL, Some(0), 2), way: Some(Ok(out("eth2", 1002))), ..facts() };
    let said = conclusion(&to_isp);
    assert_eq!(said, "goes by DSL (eth2) to 192.0.2.1, seen as 203.0.113.7, because rule 1 leads to DSL");
}

#[test]
fn a_bucket_that_has_moved_says_whose_it_is_otherwise() {
    let facts = facts();
    let bucket = (0..BUCKETS).find(|&bucket| facts.home(bucket) == Some(id(DSL))).unwrap();
    let steering = Steering { bucket: Some(bucket), ..steered(CABLE, Some(2), 1) };
    let mut facts = Facts { steering, ..facts };
    let told = explain(&facts);
    assert_eq!(told.bucket.unwrap().home.as_deref(), Some("DSL"));
    assert!(told.conclusion.ends_with("is CABLE's while DSL gets no new flows"), "{}", told.conclusion);
    facts.isps.get_mut(&id(DSL)).unwrap().usable = false;
    let told = explain(&facts);
    assert!(told.conclusion.ends_with("is CABLE's while DSL is not usable"), "{}", told.conclusion);
}

#[test]
fn a_live_flow_stays_where_it_is() {
    let seen_from = "203.0.113.8:41000".parse().unwrap();
    let sent_to = "198.51.100.9:443".parse().unwrap();
    let live = Tracked { mark: 0xdead_0200, is_answer: false, seen_from, sent_to };
    let facts = Facts { live: Ok(Some(live)), way: Some(Ok(out("eth2", 1002))), ..facts() };
    assert_eq!(facts.routed_mark(), 0x200);
    let told = explain(&facts);
    assert_eq!(told.nat, Nat::Live { seen_as: seen_from, sent_to });
    assert_eq!(
        told.conclusion,
        "goes by DSL (eth2) to 192.0.2.1, seen as 203.0.113.8, because it is a live flow of DSL, and flows stay where \
         they are; a new one would be steered to CABLE"
    );
    // One that has lost its ISP, or never had one, is steered as a new one is.
    for mark in [0, 0x3f00] {
        let facts = Facts { live: Ok(Some(Tracked { mark, ..live })), ..facts.clone() };
        assert_eq!(facts.routed_mark(), 0x100);
    }
}

#[test]
fn what_the_last_resort_refuses_does_not_go_anywhere() {
    let refused = |below: u8| {
        let mark = mask().value(id(MAX_ISPS - below));
        let steering = Steering { mark, policy: Some(policy_id(1)), ..not_steered(Decision::NoIsp, None) };
        conclusion(&Facts { steering, way: None, ..facts() })
    };
    assert_eq!(
        refused(1),
        "is refused (ICMP unreachable), because none of the ISPs of policy VIDEO can take it"
    );
    assert_eq!(refused(2), "is dropped, because none of the ISPs of policy VIDEO can take it");
}

#[test]
fn routes_of_the_system_come_first_and_no_route_is_said_so() {
    let by_tunnel = Facts { way: Some(Ok(Way { gateway: None, ..out("wg0", 254) })), ..facts() };
    let said = conclusion(&by_tunnel);
    assert!(
        said.starts_with("goes by wg0, because a route of the system comes before all balancing"),
        "{said}"
    );
    assert_eq!(explain(&by_tunnel).nat, Nat::None);
    let nowhere = Facts { way: Some(Err("Network is unreachable".to_owned())), ..facts() };
    assert!(conclusion(&nowhere).starts_with("goes nowhere (Network is unreachable), though rule 3"));
}

fn over_v6(from: &str, nat: Ipv6Nat) -> Facts {
    let mut facts = facts();
    (facts.question.from, facts.question.to) = (Some(ip(from)), ip("2001:db8:ffff::1"));
    let own = [ip("2001:db8:1::2")];
    facts.way = Some(Ok(Way { addresses: own.into(), hides_behind: Some(own[0]), ..out("eth1", 1001) }));
    facts.in_force.as_mut().unwrap().ipv6.insert("CABLE".to_owned(), nat);
    facts
}

#[test]
fn ipv6_is_translated_as_the_isp_has_it() {
    let own = "2001:db8:a::/48".parse().unwrap();
    let mapping = vec![("fd00:1::/64".parse().unwrap(), "2001:db8:a:7::/64".parse().unwrap())];
    let npt = || Ipv6Nat::Npt { own, mapping: mapping.clone() };
    let source = || Ipv6Nat::Source { own, decides: true };
    let hidden = Nat::Masquerade { seen_as: Some(ip("2001:db8:1::2")) };
    for (from, nat, expected) in [
        ("fd00:1::10", Ipv6Nat::Masquerade, hidden.clone()),
        ("fd00:1::10", Ipv6Nat::Off, Nat::None),
        ("fd00:1::10", npt(), Nat::Prefix { seen_as: ip("2001:db8:a:7::10") }),
        ("fd00:2::10", npt(), hidden.clone()),
        ("2001:db8:a:1::10", npt(), Nat::None),
        ("fd00:1::10", source(), hidden),
        ("2001:db8:a:1::10", source(), Nat::None),
        ("2001:db8:1::2", Ipv6Nat::Masquerade, Nat::None),
    ] {
        assert_eq!(explain(&over_v6(from, nat.clone())).nat, expected, "{from} {nat:?}");
    }
    let mut alone = over_v6("fd00:1::10", Ipv6Nat::Masquerade);
    alone.in_force = None;
    assert_eq!(explain(&alone).nat, Nat::Unknown);
    assert!(explain(&alone).notes.iter().any(|note| note.contains("the daemon does not answer")));
}

#[test]
fn a_prefix_that_decides_beats_the_bucket() {
    let own = "2001:db8:a::/48".parse().unwrap();
    let mut facts = over_v6("2001:db8:a::10", Ipv6Nat::Source { own, decides: true });
    facts.steering = steered(DSL, None, 0);
    assert_eq!(facts.routed_mark(), 0x100);
    assert!(conclusion(&facts).ends_with("because its source is of CABLE's prefix, which decides"));
    facts.in_force.as_mut().unwrap().ipv6.insert("CABLE".to_owned(), Ipv6Nat::Source { own, decides: false });
    assert_eq!(facts.routed_mark(), 0x200);
}

#[test]
fn forwards_lead_hosts_of_the_lan_to_theirs() {
    let mut facts = facts();
    facts.steering = not_steered(Decision::Local(None), None);
    facts.way = Some(Ok(Way { is_here: true, ..out("lo", 255) }));
    assert!(conclusion(&facts).starts_with("is for this machine itself"));
    facts.in_force.as_mut().unwrap().forwards.push(ForwardInForce {
        addresses: [facts.question.to].into(),
        protocols: vec![6],
        ports: vec![(400, 500)],
        to: ip("192.168.1.20"),
        to_port: Some(8443),
    });
    let told = explain(&facts);
    assert_eq!(told.nat, Nat::Forward { sent_to: "192.168.1.20:8443".parse().unwrap() });
    assert!(
        told.conclusion.starts_with("goes to 192.168.1.20:8443, because a [[forward]]"),
        "{}",
        told.conclusion
    );
}

#[test]
fn a_source_port_that_was_taken_is_said_so_where_it_matters() {
    let says = |facts: &Facts| explain(facts).notes.iter().any(|note| note.contains("40000 was taken"));
    let mut any = facts();
    any.question.any_source_port = true;
    assert!(says(&any) && !says(&facts()));
    any.policies.insert(policy_id(1), entry("VIDEO", Sticky::Source, 0));
    assert!(!says(&any));
}

/// A table of one ISP but for a few buckets.
fn table(isps: &[u8]) -> BucketTable {
    let mut table = [0; BUCKETS];
    for (bucket, &isp) in table.iter_mut().zip(isps.iter().cycle()) {
        *bucket = isp;
    }
    table
}

fn selection(number: u8, sticky: Sticky, last_resort: u8, isps: &[u8]) -> Selection {
    let entry = entry("P", sticky, last_resort);
    Selection::Policy { id: policy_id(number), entry, table: Box::new(table(isps)) }
}

fn looked(selection: Selection) -> Looked {
    Looked { local: None, rule: Some(4), selection }
}

fn flow_to(port: u16) -> Flow {
    flow_of_socket(Family::V4, Some(ip("198.51.100.9").into()), 6, port)
}

#[test]
fn what_the_program_did_counts_and_what_differs_is_not_hidden() {
    let steering = expected(&looked(selection(1, Sticky::Flow, 0, &[DSL])), &flow_to(443), (SEED, mask()));
    assert_eq!((&steering.decision, steering.mark), (&Decision::Steered(id(DSL)), 0x200));
    let same = Rehearsed { verdict: Some(Verdict::Steered), mark: 0x200, policy: Some(1) };
    assert_eq!(judged(&same, steering.clone(), mask()), steering);
    for (other, decision) in [
        (Rehearsed { mark: 0x100, ..same }, Decision::Steered(id(CABLE))),
        (Rehearsed { policy: Some(2), ..same }, Decision::Steered(id(DSL))),
        (Rehearsed { verdict: Some(Verdict::Local), mark: 0, policy: None }, Decision::Local(None)),
        (Rehearsed { verdict: Some(Verdict::Bypassed), mark: 0, policy: Some(0xff) }, Decision::Bypassed),
        (Rehearsed { verdict: Some(Verdict::NoIsp), mark: 0, policy: Some(1) }, Decision::NoIsp),
        (Rehearsed { verdict: None, mark: 0, policy: None }, Decision::Unreadable),
    ] {
        let judged = judged(&other, steering.clone(), mask());
        assert_eq!((&judged.decision, judged.rule, judged.bucket), (&decision, None, None), "{other:?}");
        assert!(judged.disagreement.is_some(), "{other:?}");
        let told = explain(&Facts { steering: judged, ..facts() });
        assert!(told.notes.iter().any(|note| note.contains("the maps say")), "{told:?}");
    }
}

#[test]
fn flows_without_an_isp_have_the_mark_of_the_last_resort() {
    let nobody = looked(selection(1, Sticky::Flow, 61, &[0]));
    let steering = expected(&nobody, &flow_to(443), (SEED, mask()));
    assert_eq!((steering.decision, steering.mark), (Decision::NoIsp, 61 << 8));
    // Not those of this machine, whose sockets are only left without one.
    let steering = of_socket(&nobody, &flow_to(443), (SEED, mask()));
    assert_eq!((steering.decision, steering.mark), (Decision::NoIsp, 0));
}

#[test]
fn sockets_draw_an_isp_unless_only_one_is_left_to_draw() {
    let default = selection(0, Sticky::Flow, 0, &[CABLE, CABLE, CABLE, DSL]);
    let of = |selection: Selection, protocol| {
        let flow = Flow { protocol, ..flow_to(443) };
        of_socket(&looked(selection), &flow, (SEED, mask()))
    };
    for protocol in [6, 17] {
        let drawn = of(default.clone(), protocol);
        assert_eq!((drawn.decision, drawn.mark), (Decision::Drawn, 0));
        assert_eq!(drawn.shares, [(id(CABLE), 0.75), (id(DSL), 0.25)].into());
        let only = of(selection(2, Sticky::Flow, 0, &[DSL]), protocol);
        assert_eq!((only.decision, only.mark), (Decision::Steered(id(DSL)), 0x200));
        let sticky = of(selection(1, Sticky::Destination, 0, &[CABLE, DSL]), protocol);
        assert!(matches!((sticky.decision, sticky.bucket), (Decision::Steered(_), Some(_))));
        assert_eq!(of(Selection::Bypass, protocol).decision, Decision::Bypassed);
    }
    let text = {
        let mut facts = Facts { steering: of(default.clone(), 17), way: None, ..facts() };
        (facts.question.lan, facts.question.from, facts.question.protocol) = (None, None, 17);
        render(&explain(&facts))
    };
    assert!(text.contains("UDP sockets draw a bucket"), "{text}");
    assert!(text.ends_with("goes by CABLE (75%) or DSL (25%), whichever its socket draws, because rule 5 leads to policy default\n"), "{text}");
}
