//! Evidence beside probes, and none where nobody could look.
#![cfg(test)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::SERVER_PORT;
use balance_lab::{Daemon, Family, Lab, Stream, ready, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const SOON: Duration = Duration::from_secs(15);

/// The default config with these keys of `[monitor]`.
fn start(lab: &Lab, monitor: &str) -> Daemon {
    lab.write_config(&format!("{}\n[monitor]\n{monitor}", lab.config())).unwrap();
    lab.start_up().unwrap()
}

/// Asks sixteen hosts for connections, which come about or not.
fn ask(lab: &Lab) -> Vec<Socket> {
    let connect = |host: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = SocketAddr::new(Ipv4Addr::new(203, 0, 113, host).into(), SERVER_PORT);
        // In progress.
        drop(socket.connect(&to.into()));
        socket
    };
    lab.lan().run(|| (100..116).map(connect).collect())
}

fn number(isp: &Value, field: &str) -> u64 {
    isp[field].as_u64().unwrap_or_else(|| panic!("no {field} in {isp:#}"))
}

#[test]
fn an_isp_by_which_no_connection_comes_about_is_degraded_and_says_so_though_it_answers_pings() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab, "degraded_after = \"1s\"\nrestored_after = \"1s\"\n");
    let isp = lab.isp("CABLE").host();
    let rules = "table inet starve {\nchain it {\ntype filter hook forward priority 5\n\
                 iifname internet tcp flags & (syn | ack) == syn | ack drop\n}\n}";
    isp.feed("nft", &["-f", "-"], rules).unwrap();
    let mut sockets = Vec::new();
    let mut asking_until = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        wait_until(SOON, what, || {
            sockets.extend(ask(&lab));
            wanted(&lab.isp_status("CABLE").unwrap())
        })
        .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", lab.status().unwrap(), daemon.stderr()));
    };
    asking_until("CABLE degraded", &|isp| {
        let why = isp["reason"].as_str().unwrap_or_default();
        isp["state"] == "degraded" && why.contains("TCP connections are asked for and none is answered")
    });
    let [cable, dsl] = ["CABLE", "DSL"].map(|name| lab.isp_status(name).unwrap());
    assert!(number(&cable, "syn_sent") >= 16 && number(&cable, "syn_answered") == 0, "{cable:#}");
    assert!(number(&dsl, "syn_answered") > 0 && dsl["state"] == "up", "{dsl:#}");
    assert!(number(&dsl, "syn_sent") >= number(&dsl, "syn_answered"), "{dsl:#}");
    assert!(number(&cable, "received_ms_ago") < 5000, "{cable:#}");

    isp.sh("nft delete table inet starve").unwrap();
    asking_until("CABLE up", &|isp| isp["state"] == "up" && number(isp, "syn_answered") > 0);
    let said = daemon.stderr();
    assert!(!said.contains("is down"), "{said}");
}

#[test]
fn a_daemon_that_is_stopped_for_a_while_blames_no_isp_and_still_finds_out_who_died_meanwhile() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    // In quick succession, so that there is always something under way.
    let daemon = start(&lab, "profile = \"fast\"\n");
    let flows = Stream::start(lab.lan(), 100, 20, Family::V4).unwrap();
    let stop_for = |milliseconds| {
        daemon.signal(Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.signal(Signal::SIGCONT).unwrap();
    };
    for milliseconds in [200, 500, 900, 1_500, 3_000, 700, 1_100] {
        let before = lab.isp("CABLE").forwarded().unwrap().to_router;
        stop_for(milliseconds);
        wait_until(SOON, "traffic after it", || {
            lab.isp("CABLE").forwarded().unwrap().to_router > before + 100
        })
        .unwrap();
    }
    lab.wait_all_up().unwrap();
    let said = daemon.stderr();
    assert!(said.matches("held up for").count() >= 3, "{said}");
    assert!(!said.contains("is down") && !said.contains("is degraded"), "{said}");
    for name in ["CABLE", "DSL"] {
        let isp = lab.isp_status(name).unwrap();
        assert!(isp["rtt_ms"].as_f64().unwrap() < 300.0, "what took so long was us: {isp:#}");
    }
    assert_eq!(flows.stop().unwrap().moved, 0);

    daemon.signal(Signal::SIGSTOP).unwrap();
    lab.isp("CABLE").die_silently().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    daemon.signal(Signal::SIGCONT).unwrap();
    lab.wait_state("CABLE", "down").unwrap();
}
