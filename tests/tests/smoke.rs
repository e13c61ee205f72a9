//! smoke
use balance_lab::Family;
use balance_lab::{Lab, Transport, by_source, open_flows, ready};
use std::time::Duration;

#[test]
fn smoke() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    println!("{}", lab.config());
    lab.write_config(&lab.config()).unwrap();
    let daemon = lab.start(&[]).unwrap();
    for (t, f) in [
        (Transport::Udp, Family::V4),
        (Transport::Tcp, Family::V4),
        (Transport::Udp, Family::V6),
        (Transport::Tcp, Family::V6),
    ] {
        let mut flows = open_flows(lab.lan(), 1000, t, f).unwrap();
        let answers = flows.ask(Duration::from_secs(3));
        println!("{:?}", by_source(&answers));
    }
    let out = lab.balance(&["status"]).unwrap();
    println!("{}", out.stdout);
    println!("{}", out.stderr);
    let out = lab.balance(&["status", "--json"]).unwrap();
    println!("{}", out.stdout);
    println!("{}", out.stderr);
    println!(
        "{}",
        lab.router().sh("ip rule; ip route show table all proto 201; ip -6 rule; nft list ruleset").unwrap()
    );
    let out = lab.balance(&["stop"]).unwrap();
    println!("{} {}", out.stdout, out.stderr);
    println!("{}", daemon.stderr());
}
