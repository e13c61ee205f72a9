//! The fast path, end to end.
#![cfg(test)]

use std::time::Duration;

use balance_lab::{Family, Lab, Transport, open_flows, ready};

#[test]
fn flows_that_were_answered_go_fast() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&format!("acceleration = \"tc\"\n{}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    for transport in [Transport::Tcp, Transport::Udp] {
        for family in [Family::V4, Family::V6] {
            let mut flows = open_flows(lab.lan(), 2500, transport, family).unwrap();
            for round in 0..10 {
                let answers = flows.ask(Duration::from_secs(3));
                for (n, a) in answers.iter().enumerate() {
                    if let Err(e) = a {
                        println!("{transport:?} {family:?} round {round} flow {n}: {e}");
                    }
                }
            }
            let s = lab.status().unwrap();
            for i in s["isps"].as_array().unwrap() {
                println!("{} fast {} slow {}", i["name"], i["fast_packets"], i["slow_packets"]);
            }
        }
    }
    println!("{}", lab.router().run(|| String::from_utf8(std::process::Command::new("sh").arg("-c").arg("cat /proc/net/stat/nf_conntrack; sysctl net.netfilter.nf_conntrack_tcp_be_liberal; ip -s link show lan0; nstat -az 2>/dev/null| grep -i -E 'drop|err|discard' ").output().unwrap().stdout).unwrap()));
}
