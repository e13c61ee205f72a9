//! What goes wrong at one ISP takes that one down, with a reason that says what it is, and no other.

use balance_lab::ready;
use simple_dns::RCODE;

use crate::scene::{HTTP, HTTPS, Mischief, Scene, TCP, WWW, page, redirect, servers};
use crate::servers::Says;

/// The prefixes of CABLE's customers, as rules call them.
const CUSTOMERS: [&str; 2] = ["ip saddr 100.64.1.0/24", "ip6 saddr 2001:db8:1::/64"];

/// With these targets at first all is well, then CABLE fails for this reason, and then all is well again.
fn cases(scene: &Scene, cases: Vec<(String, Mischief, String)>) {
    let daemon = {
        scene.configure(&cases[0].0, 1);
        scene.start()
    };
    for (targets, mischief, reason) in cases {
        scene.reload(&daemon, &targets);
        scene.lab.wait_all_up().unwrap_or_else(|error| panic!("{targets}: {error:#}"));
        scene.trouble(mischief);
        scene.only_cable_fails(&reason);
        scene.trouble(Mischief::default());
        scene.lab.wait_all_up().unwrap_or_else(|error| panic!("{targets}: {error:#}"));
    }
}

#[test]
fn a_captive_portal_is_not_taken_for_the_internet() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut all = Vec::new();
    for server in servers(HTTP) {
        let portal = |page: String| Mischief { page: Some(page), name: None };
        let url = format!("\"http://{server}/generate_204\"");
        let login = redirect("http://portal.test/login");
        all.push((
            url.clone(),
            portal(login),
            "redirected to http://portal.test/login: a captive portal?".to_owned(),
        ));
        let reason = "status 200 instead of 204: a captive portal?".to_owned();
        all.push((url, portal(page(200, "please log in")), reason));
        let wanted = format!("{{ url = \"http://{server}/\", body = \"is ok\" }}");
        let reason = "the page does not contain \"is ok\": a captive portal?".to_owned();
        all.push((wanted, portal(page(200, "please log in")), reason));
    }
    cases(&scene, all);
}

#[test]
fn a_name_server_that_lies_fails_or_is_dead_is_found_out() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut all = Vec::new();
    for (server, wrong) in WWW.iter().zip(["198.51.100.9", "2001:db8:9::9"]) {
        let broken = |says: Says| Mischief { page: None, name: Some(says) };
        let target = format!("{{ dns = \"{server}\", name = \"www.test\", answer = \"{server}\" }}");
        let lies = broken(Says::Addresses(vec![wrong.parse().unwrap()]));
        all.push((target.clone(), lies, format!("answer {wrong} instead of {server}")));
        all.push((
            target.clone(),
            broken(Says::Code(RCODE::ServerFailure)),
            format!("{server} says SERVFAIL for www.test"),
        ));
        all.push((target, broken(Says::Nothing), format!("no answer from dns://{server}/www.test")));
    }
    cases(&scene, all);
}

#[test]
fn names_are_looked_up_through_the_isp_itself() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"http://www.test/generate_204\"", 1);
    let daemon = scene.start();
    scene.lab.wait_all_up().unwrap();
    // A daemon that knows nothing yet.
    scene.trouble(Mischief { page: None, name: Some(Says::Nothing) });
    drop(daemon);
    scene.lab.balance_ok(&["stop"]).unwrap();
    let _daemon = scene.start();
    scene.only_cable_fails("cannot look up www.test: no answer from");
    scene.trouble(Mischief::default());
    scene.lab.wait_all_up().unwrap();
}

#[test]
fn a_port_that_is_refused_or_filtered_is_down() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"gateway\"", 1);
    let daemon = scene.start();
    scene.watch_marks();
    for (server, customers) in servers(TCP).iter().zip(CUSTOMERS) {
        scene.reload(&daemon, &format!("\"tcp://{server}\""));
        scene.lab.wait_all_up().unwrap();
        let refused = format!("connection refused by {server}");
        let filtered = format!("no answer from tcp://{server}");
        for (verdict, reason) in [("reject with tcp reset", refused), ("drop", filtered)] {
            scene.filter(&format!("{customers} tcp dport {TCP} {verdict}"));
            scene.only_cable_fails(&reason);
            scene.filter("");
            scene.lab.wait_all_up().unwrap();
        }
    }
    // Not even while their ISP takes no flows, when other sockets of its mark get another one.
    assert_eq!(scene.marks().1, 0, "probes that left with a wrong mark");
}

#[test]
fn a_gateway_that_does_not_answer_for_its_address_is_down() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"gateway\"", 1);
    let _daemon = scene.start();
    scene.lab.wait_all_up().unwrap();
    let gateway = scene.lab.isp("CABLE").host();
    let rule = "table inet deaf {
        chain in {
            type filter hook input priority 0
            icmpv6 type nd-neighbor-solicit drop
        }
    }";
    gateway.feed("nft", &["-f", "-"], rule).unwrap();
    scene
        .lab
        .wait_isp("CABLE", |isp| crate::scene::text(isp, "reason").contains("IPv6: no answer from gateway"))
        .unwrap();
    gateway.sysctls(&[("net.ipv4.conf.all.arp_ignore", "8")]).unwrap();
    scene.only_cable_fails("IPv4: no answer from gateway");
    gateway.sysctls(&[("net.ipv4.conf.all.arp_ignore", "0")]).unwrap();
    gateway.feed("nft", &["-f", "-"], "delete table inet deaf").unwrap();
    scene.lab.wait_all_up().unwrap();
}

#[test]
fn a_certificate_for_somebody_else_or_by_nobody_is_no_proof() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.configure("\"gateway\"", 1);
    let daemon = scene.start();
    scene.lab.wait_all_up().unwrap();
    for family in [0, 1] {
        for (port, reason) in [
            (HTTPS + 1, "is for somebody else: a captive portal?"),
            (HTTPS + 2, "is not trusted by this machine: a captive portal?"),
            (HTTP, "does not speak TLS as it should"),
        ] {
            scene.reload(&daemon, &format!("\"https://{}/\"", servers(port)[family]));
            let has = |isp: &serde_json::Value| {
                isp["state"] == "down" && crate::scene::text(isp, "reason").contains(reason)
            };
            for isp in ["CABLE", "DSL"] {
                scene.lab.wait_isp(isp, has).unwrap();
            }
        }
    }
}
