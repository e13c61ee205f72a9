//! The lab does what it says. Here the router is set up by hand, as a plain NAT router without the daemon.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use balance_lab::addresses::{INTERNET_V4, SERVER_PORT, lan_host};
use balance_lab::{
    Daemon, Dump, Family, Flow, Host, IspSpec, Lab, Stream, Transport, ask_tcp, by_source, open_flows, ready,
    send_one_way, serve_tcp, wait_until,
};

const SOON: Duration = Duration::from_secs(2);
/// The kernel takes namespaces down one after the other, those of other tests too.
const KERNEL: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_millis(300);
const EVERY_KIND: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// A lab whose router forwards and translates: all by CABLE, but 203.0.113.2 by DSL.
fn plain_lab() -> anyhow::Result<Lab> {
    let lab = Lab::new()?;
    route_by_hand(&lab)?;
    Ok(lab)
}

fn route_by_hand(lab: &Lab) -> anyhow::Result<()> {
    let router = lab.router();
    router.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    router.ip(&["route add 203.0.113.2 via 100.64.2.1".to_owned()])?;
    let nat = "table inet nat { chain out { type nat hook postrouting priority 100; oifname != lan0 masquerade; }; }";
    router.feed("nft", &["-f", "-"], nat)?;
    Ok(())
}

fn by_cable() -> SocketAddr {
    (INTERNET_V4, SERVER_PORT).into()
}

fn by_dsl() -> SocketAddr {
    ([203, 0, 113, 2], SERVER_PORT).into()
}

fn asks(lab: &Lab, to: SocketAddr, timeout: Duration) -> bool {
    ask_tcp(lab.lan(), to, timeout).is_ok()
}

/// Whether CABLE's own machine answers: it refuses a connection.
fn gateway_lives(lab: &Lab, family: Family) -> bool {
    let cable = lab.isp("CABLE");
    let gateway: IpAddr = match family {
        Family::V4 => cable.gateway_v4().into(),
        Family::V6 => cable.gateway_v6().into(),
    };
    let answer = ask_tcp(lab.router(), SocketAddr::new(gateway, 9), NEVER);
    answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn every_kind_of_flow_is_answered_with_the_address_of_its_isp() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    for (transport, family) in EVERY_KIND {
        let mut flow = Flow::open(lab.lan(), transport, family, SOON).unwrap();
        assert_eq!(flow.local_address().ip(), lan_host(0, family));
        for _ in 0..2 {
            assert_eq!(flow.ask().unwrap(), lab.isp("CABLE").address(family), "{transport:?} {family:?}");
        }
    }
    for transport in [Transport::Tcp, Transport::Udp] {
        let source = Flow::open_to(lab.lan(), transport, by_dsl(), SOON).unwrap().ask().unwrap();
        assert_eq!(lab.isp_of(source).unwrap().name(), "DSL");
    }
    let forwarded = lab.isp("DSL").forwarded().unwrap();
    assert!(
        forwarded.to_internet >= 5 && forwarded.to_router >= 3 && forwarded.foreign == 0,
        "{forwarded:?}"
    );
}

#[test]
fn the_router_starts_plain_and_untranslated_packets_go_nowhere() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let router = lab.router();
    assert_eq!(router.sysctl("net.ipv4.ip_forward").unwrap(), "0");
    assert_eq!(router.sysctl("net.ipv6.conf.all.forwarding").unwrap(), "0");
    assert_eq!(router.sh("nft list ruleset").unwrap(), "");
    assert_eq!(router.sh("ls /sys/fs/bpf/balance /run/balance 2>&1 || true").unwrap().lines().count(), 2);
    // The router itself has ways out, by the first ISP.
    let mut own = Flow::open(router, Transport::Udp, Family::V6, SOON).unwrap();
    assert_eq!(own.ask().unwrap(), lab.isp("CABLE").address(Family::V6));

    router.sysctls(&[("net.ipv4.ip_forward", "1")]).unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert_ne!(lab.isp("CABLE").forwarded().unwrap().foreign, 0);
}

#[test]
fn silent_death_stops_everything_but_carrier_until_revived() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let cable = lab.isp("CABLE");
    assert!(gateway_lives(&lab, Family::V4) && gateway_lives(&lab, Family::V6));
    let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, NEVER).unwrap();
    flow.ask().unwrap();

    cable.die_silently().unwrap();
    flow.ask().unwrap_err();
    assert!(!asks(&lab, by_cable(), NEVER));
    // The neighbours are found all the same.
    lab.router().sh("ip neigh flush dev cable0; ip -6 neigh flush dev cable0").unwrap();
    assert!(!gateway_lives(&lab, Family::V4) && !gateway_lives(&lab, Family::V6));
    for family in ["-4", "-6"] {
        let neighbours = lab.router().sh(&format!("ip {family} neigh show dev cable0")).unwrap();
        assert!(neighbours.contains("lladdr"), "{neighbours}");
    }
    assert!(lab.router().sh("ip link show cable0").unwrap().contains("LOWER_UP"));
    assert!(asks(&lab, by_dsl(), SOON));

    cable.revive().unwrap();
    flow.ask().unwrap();
    assert!(asks(&lab, by_cable(), SOON));
}

#[test]
fn death_behind_the_gateway_leaves_the_gateway() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    lab.isp("CABLE").die_behind_gateway().unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert!(gateway_lives(&lab, Family::V4) && gateway_lives(&lab, Family::V6));
    lab.isp("CABLE").revive().unwrap();
    assert!(asks(&lab, by_cable(), SOON));
}

#[test]
fn carrier_goes_and_comes_back_with_both_families() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let has_carrier = || lab.router().sh("ip link show cable0").unwrap().contains("LOWER_UP");
    lab.isp("CABLE").set_carrier(false).unwrap();
    wait_until(SOON, "loss of carrier", || !has_carrier()).unwrap();
    assert!(!asks(&lab, by_cable(), NEVER));
    assert!(asks(&lab, by_dsl(), SOON));
    lab.isp("CABLE").set_carrier(true).unwrap();
    wait_until(SOON, "carrier", has_carrier).unwrap();
    for (transport, family) in EVERY_KIND {
        wait_until(SOON, "answers", || {
            Flow::open(lab.lan(), transport, family, NEVER).and_then(|mut flow| flow.ask()).is_ok()
        })
        .unwrap();
    }
}

#[test]
fn an_unplugged_device_comes_back_as_another() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let index = || lab.router().sh("ip -o link show dsl0").unwrap().split(':').next().unwrap().to_owned();
    let before = index();
    lab.unplug("DSL").unwrap();
    lab.router().sh("! ip link show dsl0").unwrap();
    lab.plug("DSL").unwrap();
    assert_ne!(index(), before);
    lab.router().ip(&["route add 203.0.113.2 via 100.64.2.1".to_owned()]).unwrap();
    assert!(asks(&lab, by_dsl(), SOON));
}

#[test]
fn loss_is_about_what_was_asked_for() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    lab.isp("CABLE").set_loss(20).unwrap();
    send_one_way(lab.lan(), 5_000, Family::V4).unwrap();
    let cable = lab.isp("CABLE").address(Family::V4);
    // All that arrive do so at once; one binomial deviation of 5,000 is 28 packets.
    let count = || lab.sink().counts().get(&cable).copied().unwrap_or_default();
    wait_until(SOON, "the packets", || count() > 3_800).unwrap();
    assert!(count() < 4_200, "{}", count());
    lab.isp("CABLE").set_loss(0).unwrap();
    let mut flows = open_flows(lab.lan(), 1_000, Transport::Udp, Family::V6).unwrap();
    assert!(flows.ask(SOON).iter().all(Result::is_ok));
}

#[test]
fn one_way_packets_are_counted_by_source() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    for family in [Family::V4, Family::V6] {
        send_one_way(lab.lan(), 500, family).unwrap();
    }
    let cable = lab.isp("CABLE");
    let expected = BTreeMap::from([(cable.address(Family::V4), 500), (cable.address(Family::V6), 500)]);
    wait_until(SOON, "1,000 packets", || lab.sink().counts() == expected).unwrap();
}

#[test]
fn a_stream_counts_what_is_lost_and_which_flows_moved() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let stream = Stream::start(lab.lan(), 1_000, 10, Family::V4).unwrap();
    let forwarded = || lab.isp("CABLE").forwarded().unwrap().to_internet;
    wait_until(SOON, "300 packets", || forwarded() > 300).unwrap();
    let report = stream.stop().unwrap();
    assert!(report.sent > 300 && report.lost == 0 && report.moved == 0, "{report:?}");

    let stream = Stream::start(lab.lan(), 1_000, 10, Family::V4).unwrap();
    let start = forwarded();
    wait_until(SOON, "100 packets", || forwarded() > start + 100).unwrap();
    lab.isp("CABLE").die_silently().unwrap();
    let dead = Instant::now();
    wait_until(SOON, "200 lost packets", || dead.elapsed() > Duration::from_millis(200)).unwrap();
    // The route by DSL moves them, and MASQUERADE gives a flow its new address after a packet.
    lab.router()
        .sh("ip route replace default via 100.64.2.1 metric 1; conntrack -D -p udp >&2 || true")
        .unwrap();
    let dsl = || lab.isp("DSL").forwarded().unwrap().to_router;
    wait_until(SOON, "100 packets by DSL", || dsl() > 100).unwrap();
    let report = stream.stop().unwrap();
    assert!(report.lost > 100 && report.received > 150 && report.moved == 10, "{report:?}");
    assert_eq!(report.sent, report.received + report.lost);
}

#[test]
fn connections_from_outside_reach_the_router_and_hosts_behind_it() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let dsl = lab.isp("DSL");
    let router = serve_tcp(lab.router(), "0.0.0.0:0".parse().unwrap()).unwrap();
    // Replies need the way back by the same ISP, which is the daemon's job.
    lab.router().ip(&["route add 203.0.113.0/24 via 100.64.2.1".to_owned()]).unwrap();
    let to = SocketAddr::new(dsl.address(Family::V4), router.address().port());
    assert_eq!(ask_tcp(lab.internet(), to, SOON).unwrap(), IpAddr::from(INTERNET_V4));

    let behind = serve_tcp(lab.lan(), SocketAddr::new(lan_host(0, Family::V4), 8080)).unwrap();
    let forward = format!(
        "table ip forward {{ chain in {{ type nat hook prerouting priority -100; tcp dport 80 dnat to {}; }}; }}",
        behind.address()
    );
    lab.router().feed("nft", &["-f", "-"], &forward).unwrap();
    let to = SocketAddr::new(dsl.address(Family::V4), 80);
    assert_eq!(ask_tcp(lab.internet(), to, SOON).unwrap(), IpAddr::from(INTERNET_V4));
}

#[test]
fn ten_thousand_flows_of_each_kind_stay_open_at_once() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let limit: usize = lab.router().sysctl("net.netfilter.nf_conntrack_max").unwrap().parse().unwrap();
    assert!(limit >= 50_000, "net.netfilter.nf_conntrack_max is {limit}");
    let start = Instant::now();
    let mut open = Vec::new();
    for (transport, family) in EVERY_KIND {
        open.push((family, open_flows(lab.lan(), 10_000, transport, family).unwrap()));
    }
    for (family, flows) in &mut open {
        let answers = flows.ask(SOON);
        assert_eq!(by_source(&answers), BTreeMap::from([(lab.isp("CABLE").address(*family), 10_000)]));
    }
    println!("40,000 flows opened and answered in {:?}", start.elapsed());
    for (_, flows) in open {
        flows.close().unwrap();
    }
}

#[test]
fn flows_of_a_dead_isp_fail_and_do_not_hold_up_the_others() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let to = (0..2_000).map(|index| if index % 2 == 0 { by_cable() } else { by_dsl() }).collect();
    let mut flows = balance_lab::Flows::open_to(lab.lan(), Transport::Udp, to).unwrap();
    assert_eq!(flows.len(), 2_000);
    lab.isp("CABLE").die_silently().unwrap();
    let start = Instant::now();
    let answers = flows.ask(NEVER);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(by_source(&answers), BTreeMap::from([(lab.isp("DSL").address(Family::V4), 1_000)]));
    lab.isp("CABLE").revive().unwrap();
    assert_eq!(flows.ask(SOON).iter().flatten().count(), 2_000);
}

#[test]
fn two_labs_do_not_disturb_each_other() {
    if !ready() {
        return;
    }
    let (one, two) = (plain_lab().unwrap(), plain_lab().unwrap());
    one.isp("CABLE").die_silently().unwrap();
    one.router().sh("mkdir /run/balance /sys/fs/bpf/balance; nft add table inet mine").unwrap();
    assert!(!asks(&one, by_cable(), NEVER));
    assert!(asks(&two, by_cable(), SOON));
    two.router().sh("! ls /run/balance; ! ls /sys/fs/bpf/balance; ! nft list table inet mine").unwrap();
    assert!(!Path::new("/run/balance").exists() && !Path::new("/sys/fs/bpf/balance").exists());
}

#[test]
fn several_lan_hosts_and_isps_share_a_router() {
    if !ready() {
        return;
    }
    let lab = Lab::builder()
        .lan_hosts(2)
        .isp(IspSpec::new("CABLE"))
        .isp(IspSpec::new("DSL").v4_only())
        .isp(IspSpec::new("LTE").weight(5))
        .build()
        .unwrap();
    route_by_hand(&lab).unwrap();
    for host in lab.lan_hosts() {
        for (transport, family) in EVERY_KIND {
            let mut flow = Flow::open(host, transport, family, SOON).unwrap();
            assert_eq!(flow.ask().unwrap(), lab.isp("CABLE").address(family));
        }
    }
    assert!(!lab.router().sh("ip -6 addr show dsl0").unwrap().contains("2001:"));
    let config = lab.config();
    assert!(config.contains("name = \"LTE\"\ndevice = \"lte0\"\nweight = 5\n"), "{config}");
    assert!(config.contains("device = \"dsl0\"\nweight = 1\ntargets = [\"203.0.113.1\"]\n"), "{config}");
}

#[test]
fn without_default_routes_the_router_has_none() {
    if !ready() {
        return;
    }
    let lab = Lab::builder().default_routes(false).build().unwrap();
    assert_eq!(lab.router().sh("ip route show default; ip -6 route show default").unwrap(), "");
}

#[test]
fn a_dump_is_the_same_after_traffic_and_tells_every_change() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for (transport, family) in EVERY_KIND {
        Flow::open(lab.lan(), transport, family, SOON).unwrap().ask().unwrap();
    }
    assert_eq!(before.diff(&Dump::take(lab.router()).unwrap()), Vec::<String>::new());

    let changes = [
        ("ip rule add fwmark 0x100 table 1001 priority 10001", "+ rules v4: 10001:"),
        ("ip -6 rule add fwmark 0x100 table 1001 priority 10001", "+ rules v6: 10001:"),
        ("ip route add 198.51.100.0/24 via 100.64.1.1 table 1001", "+ routes v4: 198.51.100.0/24"),
        ("ip -6 route add 2001:db8:5::/64 via 2001:db8:1::1 table 1001", "+ routes v6: 2001:db8:5::/64"),
        ("nft add table inet balance", "+ nft: table inet balance"),
        (
            "echo 2 > /proc/sys/net/ipv4/conf/cable0/rp_filter",
            "- sysctls: /proc/sys/net/ipv4/conf/cable0/rp_filter = 0",
        ),
        ("tc qdisc add dev lan0 clsact", "+ qdiscs: qdisc clsact"),
        (
            "mkdir -p /run/balance/main; echo > /run/balance/main/lock",
            "+ /run/balance: /run/balance/main/lock",
        ),
        ("ip link set dsl0 mtu 1400", "+ links: "),
        ("echo 1001 CABLE > /etc/iproute2/new.conf", "+ /etc/iproute2/new.conf: 1001 CABLE"),
    ];
    for (change, expected) in changes {
        let before = Dump::take(lab.router()).unwrap();
        lab.router().sh(change).unwrap();
        let diff = before.diff(&Dump::take(lab.router()).unwrap());
        assert!(diff.iter().any(|line| line.starts_with(expected)), "{change}: {diff:#?}");
    }
}

#[test]
fn a_command_that_fails_tells_what_it_said() {
    if !ready() {
        return;
    }
    let host = Host::new("alone").unwrap();
    let error = format!("{:#}", host.sh("ip link show nothing; true").unwrap_err());
    assert!(error.contains("nothing") && error.contains("does not exist"), "{error}");
    assert!(host.sysctls(&[("net.ipv4.no_such_thing", "1")]).is_err());
    let must = "must".to_owned();
    let panic = catch_unwind(AssertUnwindSafe(|| host.run(|| panic!("as it {must}"))));
    assert!(panic.unwrap_err().downcast_ref::<String>().unwrap().contains("as it must"));
}

/// A stand-in for the daemon, which says what sd-notify would and then waits.
fn stand_in(lab: &Lab, said_first: &str) -> Command {
    let mut command = lab.router().command("python3");
    let script = "import os, socket, sys, time\n\
        print('up on', os.listdir('/run'), file=sys.stderr, flush=True)\n\
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        notify.connect(os.environ['NOTIFY_SOCKET'])\n\
        for line in sys.argv[1:]: notify.send(line.encode())\n\
        time.sleep(600)";
    command.args(["-c", script, said_first, "READY=1\nSTATUS=waiting"]);
    command
}

#[test]
fn a_daemon_is_waited_for_and_can_be_killed_and_terminated() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = Daemon::start(&lab, stand_in(&lab, "STATUS=starting")).unwrap();
    let process = format!("/proc/{}", daemon.pid());
    assert_eq!(daemon.notifications(), ["STATUS=starting", "READY=1", "STATUS=waiting"]);
    assert!(daemon.stderr().contains("up on"), "{}", daemon.stderr());
    assert!(Path::new(&process).exists());
    daemon.kill9().unwrap();
    assert!(!Path::new(&process).exists());

    let daemon = Daemon::start(&lab, stand_in(&lab, "STATUS=again")).unwrap();
    let output = daemon.terminate().unwrap();
    assert!(!output.status.success() && output.stderr.contains("up on"), "{output:?}");
}

#[test]
fn a_daemon_that_ends_early_shows_its_stderr() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let mut command = lab.router().command("sh");
    command.args(["-c", "echo no such device >&2; exit 2"]);
    let error = Daemon::start(&lab, command).err().unwrap().to_string();
    assert!(error.contains("exit status: 2") && error.contains("no such device"), "{error}");
}

#[test]
fn a_written_config_is_the_routers_alone() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let path = lab.write_config(&lab.config()).unwrap();
    assert_eq!(lab.read_config().unwrap(), lab.config());
    assert!(!path.exists());
}

/// Ties each machine of a lab to a device in another network namespace: it is there as long as the machine is.
fn tie(lab: &Lab, netns: &str) -> anyhow::Result<()> {
    let isps = lab.isps().iter().map(balance_lab::Isp::host);
    let hosts = [lab.router(), lab.internet()].into_iter().chain(lab.lan_hosts()).chain(isps);
    for (host, index) in hosts.zip(0..) {
        host.ip(&[format!("link add tie type veth peer name tie{index} netns {netns}")])?;
    }
    Ok(())
}

fn ties(witness: &Host) -> anyhow::Result<usize> {
    Ok(witness.sh("ip -o link show type veth")?.lines().count())
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() {
    if !ready() {
        return;
    }
    let witness = Host::new("witness").unwrap();
    let lab = plain_lab().unwrap();
    tie(&lab, &witness.netns()).unwrap();
    let mut sleep = lab.router().command("sleep");
    sleep.arg("600");
    // Forgotten, so that only the end of the lab can end it.
    let child = std::mem::ManuallyDrop::new(lab.router().spawn(sleep).unwrap());
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|file| file.ino());
    let process = child.id().to_string();
    assert_eq!(namespace(&process).unwrap(), lab.router().run(|| namespace("thread-self")).unwrap());
    assert_eq!(ties(&witness).unwrap(), 5);
    drop(lab);
    wait_until(SOON, "the end of the process", || namespace(&process).is_err()).unwrap();
    wait_until(KERNEL, "the end of the namespaces", || ties(&witness).unwrap() == 0).unwrap();
}

const VICTIM: &str = "BALANCE_LAB_VICTIM";

/// Not a test by itself: the process that the next one kills.
#[test]
fn victim() {
    let Some(report) = std::env::var_os(VICTIM) else { return };
    let lab = plain_lab().unwrap();
    // This process was started in the witness's namespace.
    tie(&lab, &format!("/proc/{}/ns/net", std::process::id())).unwrap();
    let mut sleep = lab.router().command("sleep");
    sleep.arg("600");
    let child = lab.router().spawn(sleep).unwrap();
    fs::write(report, format!("{} end", child.id())).unwrap();
    wait_until(Duration::from_mins(10), "death", || false).unwrap();
}

#[test]
fn a_killed_process_leaves_nothing_of_its_labs_behind() {
    if !ready() {
        return;
    }
    let witness = Host::new("witness").unwrap();
    let mut victim = witness.command(std::env::current_exe().unwrap());
    // The host's /run is its own, so no file stays behind either.
    victim.args(["--exact", "victim"]).env(VICTIM, "/run/victim").stdout(Stdio::null());
    let mut victim = witness.spawn(victim).unwrap();
    let mut report = String::new();
    wait_until(Duration::from_secs(10), "the victim's lab", || {
        report = witness.run(|| fs::read_to_string("/run/victim")).unwrap_or_default();
        report.ends_with("end")
    })
    .unwrap();
    assert_eq!(ties(&witness).unwrap(), 5);
    victim.kill9().unwrap();
    let process = format!("/proc/{}/ns/net", report.split(' ').next().unwrap());
    wait_until(SOON, "the end of the process", || fs::metadata(&process).is_err()).unwrap();
    wait_until(KERNEL, "the end of the namespaces", || ties(&witness).unwrap() == 0).unwrap();
}

#[test]
fn a_lab_is_made_and_taken_down_quickly() {
    if !ready() {
        return;
    }
    let start = Instant::now();
    let lab = Lab::new().unwrap();
    let made = start.elapsed();
    drop(lab);
    println!("made in {made:?}, gone after {:?}", start.elapsed());
    // A second for one alone; here other tests want the machine too.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
