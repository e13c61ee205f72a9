//! What `explain` says of a flow is what becomes of the flow.
#![cfg(test)]

use balance_lab::{Lab, ready};

#[test]
fn try_out() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let rules = r#"
[[rule]]
destination = "203.0.113.10"
to = "DSL"

[[policy]]
name = "STICK"
isps = ["CABLE", "DSL"]
sticky = "source"

[[rule]]
destination = ["203.0.113.11", "2001:db8:ffff::b"]
port = 7000
to = "STICK"

[[rule]]
destination = "203.0.113.12"
to = "bypass"
"#;
    lab.write_config(&format!("{}\n{rules}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    for line in [
        "--from 192.168.1.10 --to 203.0.113.1 --dport 7000",
        "--from 192.168.1.10 --to 203.0.113.1 --dport 7000 --json",
        "--from fd00:1::10 --to 2001:db8:ffff::b --dport 7000 --proto udp --sport 3",
        "--from 192.168.1.10 --to 203.0.113.10 --proto icmp",
        "--from 192.168.1.10 --to 203.0.113.11 --dport 7000",
        "--from 192.168.1.10 --to 203.0.113.12 --dport 7000",
        "--from 192.168.1.10 --to 192.168.1.1 --dport 7000",
        "--from 192.168.1.10 --to 192.168.1.20 --dport 7000",
        "--from 203.0.113.9 --to 192.168.1.20 --dport 7000",
        "--local --to 203.0.113.1 --dport 7000",
        "--local --to 203.0.113.1 --dport 7000 --proto udp",
        "--local --to 203.0.113.11 --dport 7000 --proto udp",
        "--local --to 203.0.113.11 --dport 7000",
        "--local --to 203.0.113.1 --dport 7000 --from 100.64.1.2",
        "--local --to 2001:db8:ffff::1 --dport 7000 --from 2001:db8:1::2",
        "--local --to 203.0.113.1 --proto icmp",
    ] {
        let all: Vec<&str> = ["explain"].into_iter().chain(line.split(' ')).collect();
        let out = lab.balance(&all).unwrap();
        eprintln!("$ {line}\n{}{}", out.stdout, out.stderr);
    }
}
