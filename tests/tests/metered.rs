//! Quotas and rates: what ISPs carry is counted whatever happens to the daemon, and says where new flows go.
#![cfg(test)]

use std::net::SocketAddr;
use std::time::Duration;

use balance_lab::{Family, Flow, Lab, TransferServer, Transfers, Transport, ready, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const MB: u64 = 1_000_000;
/// Bytes a second of each connection, each way.
const RATE: u32 = 4_000_000;

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

/// Bytes and packets that have gone over CABLE's line, both ways, as the ISP's own device has counted them.
fn carried(lab: &Lab) -> (u64, u64) {
    let devices =
        lab.isp("CABLE").host().run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("router:")).unwrap();
    // Received: bytes, packets and six more; then sent.
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[0] + numbers[8], numbers[1] + numbers[9])
}

/// The same in bytes on the wire: a veth that merges what it receives leaves Ethernet headers out.
fn truth(lab: &Lab) -> u64 {
    let (bytes, packets) = carried(lab);
    bytes + 14 * packets
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

/// Transfers by IPv4 and IPv6, until they are stopped.
struct Load {
    _servers: [TransferServer; 2],
    transfers: Transfers,
}

impl Load {
    fn start(lab: &Lab) -> Self {
        let servers = [Family::V4, Family::V6].map(server);
        let running = servers.map(|at| TransferServer::start(lab.internet(), at, RATE).unwrap());
        let minute = Duration::from_mins(1);
        let transfers = Transfers::start(lab.lan(), servers.to_vec(), u64::MAX, RATE, minute).unwrap();
        Self { _servers: running, transfers }
    }

    /// Both came through all that intact.
    fn stop(self) {
        for transfer in self.transfers.stop().unwrap() {
            transfer.unwrap();
        }
    }
}

/// Waits until so much has gone over CABLE's line.
fn carry(lab: &Lab, bytes: u64) {
    let (from, _) = carried(lab);
    wait_until(SOON, "traffic", || carried(lab).0 >= from + bytes).unwrap();
}

/// The ISP of a new flow.
fn new_flow(lab: &Lab) -> (Flow, String) {
    let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, SOON).unwrap();
    let isp = isp_of(lab, &mut flow);
    (flow, isp)
}

fn isp_of(lab: &Lab, flow: &mut Flow) -> String {
    lab.isp_of(flow.ask().unwrap()).unwrap().name().to_owned()
}

#[test]
fn a_quota_survives_kills_a_stop_and_a_reboot_within_one_percent_of_what_the_isp_has_counted() {
    if !ready() {
        return;
    }
    let lab = Lab::builder().like_wires().build().unwrap();
    // As real cards do: what the router sees are packets merged of many.
    lab.router().gro_on("cable0").unwrap();
    lab.router().gro_on("lan0").unwrap();
    configure(&lab, "quota = \"200 MB\"\nquota_warn = \"off\"", "");
    let start = truth(&lab);
    let daemon = lab.start_up().unwrap();
    let load = Load::start(&lab);
    carry(&lab, 20 * MB);
    daemon.kill9().unwrap();
    carry(&lab, 10 * MB);
    let daemon = lab.start(&[]).unwrap();
    carry(&lab, 5 * MB);
    daemon.kill9().unwrap();
    carry(&lab, 5 * MB);
    let daemon = lab.start(&[]).unwrap();
    load.stop();
    is_true(&lab, truth(&lab) - start, "the truth after kills");

    // What nobody has saved is in the maps, which `stop` takes away.
    let load = Load::start(&lab);
    daemon.kill9().unwrap();
    carry(&lab, 10 * MB);
    load.stop();
    lab.balance_ok(&["stop"]).unwrap();
    let counted = truth(&lab) - start;
    let daemon = lab.start_up().unwrap();
    is_true(&lab, counted, "the truth after a stop");

    // A reboot leaves nothing but the file.
    let load = Load::start(&lab);
    carry(&lab, 10 * MB);
    load.stop();
    let counted = truth(&lab) - start;
    let saved = || {
        let file = lab.router().run(|| std::fs::read("/var/lib/balance/main/quota.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        file["isps"]["CABLE"]["account"]["periods"][0]["bytes"].as_u64().unwrap()
    };
    wait_until(SOON, "the file", || saved().abs_diff(counted) * 100 <= counted)
        .unwrap_or_else(|error| panic!("{error:#}: {} and {} of {counted}", saved(), used(&lab)));
    daemon.kill9().unwrap();
    lab.router().sh("rm -r /sys/fs/bpf/balance /run/balance").unwrap();
    let _daemon = lab.start_up().unwrap();
    is_true(&lab, counted, "the truth after a reboot");
    let status = lab.balance_ok(&["status"]).unwrap();
    assert!(status.contains("quota: CABLE has used ") && status.contains(" of 200 MB ("), "{status}");
    assert!(quota(&lab)["resets"].is_string(), "{}", quota(&lab));
}

#[test]
fn new_flows_go_elsewhere_while_an_isp_is_full_and_when_its_quota_is_used_up_and_live_ones_stay() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    configure(&lab, "spill_over = \"8 Mbit/s\"\nspill_back = \"4 Mbit/s\"", "");
    let daemon = lab.start_up().unwrap();
    let (mut live, isp) = new_flow(&lab);
    assert_eq!(isp, "CABLE");
    let load = Load::start(&lab);
    lab.wait_isp("CABLE", |isp| isp["spill_over"]["full"] == true && isp["share"] == 0.0).unwrap();
    assert_eq!(new_flow(&lab).1, "DSL");
    let status = lab.balance_ok(&["status"]).unwrap();
    assert!(status.contains("rate: CABLE carries ") && status.contains("standby"), "{status}");
    // A new daemon goes on with that.
    daemon.kill9().unwrap();
    let daemon = lab.start(&[]).unwrap();
    assert_eq!(new_flow(&lab).1, "DSL");
    load.stop();
    lab.wait_isp("CABLE", |isp| isp["spill_over"]["full"] == false && isp["share"] == 1.0).unwrap();
    assert_eq!(new_flow(&lab).1, "CABLE");
    assert_eq!(isp_of(&lab, &mut live), "CABLE");

    configure(&lab, "quota = \"2 MB\"\nquota_action = \"demote\"", "");
    daemon.reload(&lab, &lab.read_config().unwrap()).unwrap();
    let load = Load::start(&lab);
    lab.wait_isp("CABLE", |isp| isp["quota"]["demoted"] == true && isp["share"] == 0.0).unwrap();
    let (mut elsewhere, isp) = new_flow(&lab);
    assert_eq!(isp, "DSL");
    load.stop();
    assert_eq!(isp_of(&lab, &mut live), "CABLE");
    let events = || lab.balance_ok(&["events", "--isp", "CABLE"]).unwrap();
    let told = "CABLE has used up its quota (";
    wait_until(SOON, "the event", || events().contains(told)).unwrap();
    assert!(events().contains(": new flows go elsewhere (8192 buckets moved away)"), "{}", events());
    // A new daemon knows it from the first moment on, and tells nobody again.
    daemon.kill9().unwrap();
    let _daemon = lab.start(&[]).unwrap();
    assert_eq!(lab.isp_status("CABLE").unwrap()["share"], 0.0);
    lab.wait_isp("DSL", |isp| isp["state"] == "up").unwrap();
    assert_eq!(events().matches(told).count(), 1, "{}", events());
    // If there is no other, it is used.
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_isp("CABLE", |isp| isp["share"] == 1.0).unwrap();
    lab.isp("DSL").revive().unwrap();
    lab.wait_isp("CABLE", |isp| isp["share"] == 0.0).unwrap();
    assert!(elsewhere.ask().is_ok());

    // The provider's own meter says less.
    lab.balance_ok(&["quota", "CABLE", "--set", "0 MB"]).unwrap();
    lab.wait_isp("CABLE", |isp| isp["share"] == 1.0).unwrap();
    assert!(used(&lab) < MB);
    wait_until(SOON, "the event", || events().contains("CABLE has quota again")).unwrap();
    let refused = lab.balance(&["quota", "DSL", "--set", "1 GB"]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("DSL has no quota"), "{refused:?}");
}
