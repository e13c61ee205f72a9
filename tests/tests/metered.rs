//! Quotas and rates: what ISPs carry is counted whatever happens to the daemon, and says where new flows go.
#![cfg(test)]

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use balance_lab::{Daemon, Family, Flow, Flows, Lab, TransferServer, Transfers, Transport, ready, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const MB: u64 = 1_000_000;
/// Bytes a second of each connection, each way.
const RATE: u32 = 2_000_000;

/// CABLE with these keys in the tier before DSL's.
fn configure(lab: &Lab, keys: &str, more: &str) {
    let config = lab.config().replacen("weight = 3", &format!("weight = 3\n{keys}"), 1);
    let config = config.replacen("weight = 1", "weight = 1\ntier = 2", 1);
    let monitor = "[monitor]\ninterval = \"200ms\"\nup_after = \"300ms\"\nflap_window = \"10ms\"\n";
    lab.write_config(&format!("{config}\n{more}\n{monitor}")).unwrap();
}

fn server(family: Family) -> SocketAddr {
    let address = match family {
        Family::V4 => "203.0.113.99".parse().unwrap(),
        Family::V6 => "2001:db8:ffff::99".parse().unwrap(),
    };
    SocketAddr::new(address, 9000)
}

/// What has gone over CABLE's line, both ways, as the ISP's own device has it.
fn truth(lab: &Lab) -> u64 {
    let devices = lab.isp("CABLE").host().run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("router:")).unwrap();
    // Received: bytes, packets and six more; then sent.
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers[0] + numbers[8]
}

fn quota(lab: &Lab) -> Value {
    lab.isp_status("CABLE").unwrap()["quota"].clone()
}

fn used(lab: &Lab) -> u64 {
    quota(lab)["used"].as_u64().unwrap()
}

/// The account is within 1 % of the truth, once it has seen all of it.
fn is_true(lab: &Lab, truth: u64, what: &str) {
    let mut last = 0;
    let near = || {
        last = used(lab);
        last.abs_diff(truth) * 100 <= truth
    };
    wait_until(SOON, what, near).unwrap_or_else(|error| panic!("{error:#}: {} of {truth}", used(lab)));
}

#[test]
fn a_quota_survives_kills_stops_and_reboots_within_one_percent_of_what_the_isp_has_counted() {
    if !ready() {
        return;
    }
    let lab = Lab::builder().like_wires().build().unwrap();
    configure(&lab, "quota = \"100 MB\"\nquota_warn = \"off\"", "");
    let start = truth(&lab);
    let daemon = lab.start_up().unwrap();
    let servers = [Family::V4, Family::V6].map(server);
    let _servers = servers.map(|at| TransferServer::start(lab.internet(), at, RATE).unwrap());
    let transfers =
        Transfers::start(lab.lan(), servers.to_vec(), u64::MAX, RATE, Duration::from_secs(60)).unwrap();
    let carried = |bytes: u64| {
        let from = truth(&lab);
        wait_until(SOON, "traffic", || truth(&lab) >= from + bytes).unwrap();
    };
    carried(5 * MB);
    daemon.kill9().unwrap();
    carried(5 * MB);
    let daemon = lab.start(&[]).unwrap();
    carried(2 * MB);
    daemon.kill9().unwrap();
    carried(2 * MB);
    let daemon = lab.start(&[]).unwrap();
    for transfer in transfers.stop().unwrap() {
        transfer.unwrap();
    }
    let now = truth(&lab);
    is_true(&lab, now - start, "the truth after kills");
    drop(daemon);
}
