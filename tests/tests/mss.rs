//! `clamp_mss`: TCP connections over a line with a smaller MTU learn of it.
#![cfg(test)]

use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, internet};
use balance_lab::checks::SOON;
use balance_lab::{Counter, Daemon, Family, Flow, Lab, Transport, ready, wait_until};

/// The line's MTU, and the segments that fit.
const MTU: u16 = 1400;
const FITTING: [(Family, &str, u16); 2] = [(Family::V4, "ip", MTU - 40), (Family::V6, "ip6", MTU - 60)];

/// A lab whose only ISP's device has a small MTU, with counters of how large the segments are that connections ask for.
fn lab() -> Lab {
    let lab = Lab::builder().isp(balance_lab::IspSpec::new("CABLE")).build().unwrap();
    lab.router().ip(&[format!("link set cable0 mtu {MTU}")]).unwrap();
    count(&lab);
    lab
}

/// Counts what the ISP sees.
fn count(lab: &Lab) {
    let syn = "iifname router tcp flags & (syn | rst) == syn tcp option maxseg size";
    let [v4, v6] = FITTING.map(|(_, _, size)| size);
    let table = format!(
        "table inet mss {{
            counter fits_ip {{ }}
            counter large_ip {{ }}
            counter fits_ip6 {{ }}
            counter large_ip6 {{ }}
            chain forward {{
                type filter hook forward priority 0;
                meta nfproto ipv4 {syn} <= {v4} counter name fits_ip
                meta nfproto ipv4 {syn} > {v4} counter name large_ip
                meta nfproto ipv6 {syn} <= {v6} counter name fits_ip6
                meta nfproto ipv6 {syn} > {v6} counter name large_ip6
            }}
        }}"
    );
    lab.isp("CABLE").host().feed("nft", &["-f", "-"], &table).unwrap();
}

fn start(lab: &Lab, clamp_mss: &str) -> Daemon {
    lab.write_config(&format!("{}[firewall]\n{clamp_mss}\n", lab.config())).unwrap();
    lab.start_up().unwrap()
}

/// How many SYNs of a new connection asked for segments that fit, and that do not.
fn open(lab: &Lab, family: Family, nfproto: &str) -> (u64, u64) {
    let counters = ["fits", "large"]
        .map(|name| Counter::open(lab.isp("CABLE").host(), "mss", &format!("{name}_{nfproto}")).unwrap());
    let before = counters.each_ref().map(|counter| counter.packets().unwrap());
    let mut flow = Flow::open_to(lab.lan(), Transport::Tcp, internet(family, SERVER_PORT), SOON).unwrap();
    flow.ask().unwrap();
    let [fits, large] = counters.each_ref().map(|counter| counter.packets().unwrap());
    (fits - before[0], large - before[1])
}

#[test]
fn segments_fit_a_device_that_is_to_be_clamped() {
    if !ready() {
        return;
    }
    let lab = lab();
    for acceleration in ["acceleration = \"off\"", "acceleration = \"tc\""] {
        lab.write_config(&format!("{acceleration}\n{}[firewall]\nclamp_mss = \"on\"\n", lab.config()))
            .unwrap();
        let daemon = lab.start_up().unwrap();
        for (family, nfproto, _) in FITTING {
            assert_eq!(open(&lab, family, nfproto), (1, 0), "{family:?}");
        }
        daemon.terminate().unwrap();
    }
}

#[test]
fn segments_are_left_alone_where_it_is_off_or_automatic_and_the_device_has_many_neighbours() {
    if !ready() {
        return;
    }
    for clamp_mss in ["", "clamp_mss = \"off\""] {
        let lab = lab();
        let _daemon = start(&lab, clamp_mss);
        for (family, nfproto, _) in FITTING {
            assert_eq!(open(&lab, family, nfproto), (0, 1), "{family:?}");
        }
    }
}

#[test]
fn a_point_to_point_device_is_clamped_as_soon_as_it_is_there() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, "");
    let clamped =
        || lab.router().sh("nft list table inet balance").unwrap().contains("maxseg size set rt mtu");
    assert!(!clamped());
    lab.unplug("DSL").unwrap();
    lab.router().ip(&["tuntap add dev dsl0 mode tun".to_owned()]).unwrap();
    wait_until(Duration::from_secs(5), "clamping", clamped).unwrap();
    lab.unplug("DSL").unwrap();
    wait_until(Duration::from_secs(5), "no clamping", || !clamped()).unwrap();
}
