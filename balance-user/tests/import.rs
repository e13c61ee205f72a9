//! Configs of Net::ISP::Balance: what becomes of them, and what is refused.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "import/malformed.rs"]
mod malformed;
#[path = "import/properties.rs"]
mod properties;

use std::path::Path;
use std::time::Duration;

use balance_user::config::save::set_weight;
use balance_user::config::{Band, Config, ConfigError, Limits, Mode, MonitorConfig};
use balance_user::import::{is_nib, to_toml};

/// As people have it: the first row of the table commented, tabs, trailing comments, options before and behind.
const ROUTER: &str = "\
## service    device   role     ping-ip        weight  gateway
CABLE\t      eth0     isp      9.9.9.9        3       192.0.2.1
DSL\t      ppp0     isp      default        default default   # the slow one
LTE           wwan0    isp      www.example.org 0
HOME\t      eth1     lan
OFFICE        eth2     lan      -              1

mode=balanced
mode = failover # really
#mode=balanced
forwarding_group=HOME OFFICE :isp
forwarding_group = :lan
warn_email=root@localhost
interval_ms=2000
timeout_ms = 500
max_packet_loss=15   # of 100
max_successive_pkts_lost=7
min_successive_pkts_rcvd=10
long_down_time=120
";

const SINGLE_HOST: &str = "CABLE eth0 isp 9.9.9.9\nDSL eth1 isp 9.9.9.9";

fn import(text: &str) -> Result<String, ConfigError> {
    to_toml(text, Path::new("balance.conf"))
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("balance.conf")).unwrap()
}

#[test]
fn what_is_printed_is_a_config_and_means_what_the_file_means_when_read_directly() {
    for text in [ROUTER, SINGLE_HOST] {
        let toml = import(text).unwrap();
        assert!(is_nib(text) && !is_nib(&toml), "{toml}");
        assert_eq!(parse(&toml), parse(text), "{toml}");
    }
}

#[test]
fn rows_become_isps_and_lans_in_their_order() {
    let config = parse(ROUTER);
    let isps: Vec<_> =
        config.isps.iter().map(|isp| (&*isp.name, &*isp.device, isp.weight, isp.tier)).collect();
    assert_eq!(isps, [("CABLE", "eth0", 3, 1), ("DSL", "ppp0", 1, 1), ("LTE", "wwan0", 1, 2)]);
    let gateways: Vec<_> = config.isps.iter().map(|isp| isp.gateway_v4).collect();
    assert_eq!(gateways, [Some([192, 0, 2, 1].into()), None, None]);
    assert_eq!(config.isps[0].targets, ["9.9.9.9".parse().unwrap()]);
    // Hosts by name are not pinged: the default targets are.
    assert_eq!(config.isps[1].targets.len(), 4);
    assert_eq!(config.isps[2].targets, config.isps[1].targets);
    let lans: Vec<_> = config.lans.iter().map(|lan| (&*lan.name, &*lan.device)).collect();
    assert_eq!(lans, [("HOME", "eth1"), ("OFFICE", "eth2")]);
    assert!(parse(SINGLE_HOST).lans.is_empty());
}

#[test]
fn the_last_of_several_modes_counts_and_balanced_is_the_default() {
    let mode = |options: &str| parse(&format!("{SINGLE_HOST}\n{options}")).mode;
    assert_eq!(parse(ROUTER).mode, Mode::Failover);
    assert_eq!(mode(""), Mode::Balanced);
    assert_eq!(mode("mode=failover\nmode=balanced"), Mode::Balanced);
    assert_eq!(mode("mode=FAILOVER"), Mode::Failover);
}

#[test]
fn what_the_link_monitor_was_told_becomes_the_monitor() {
    let monitor = |options: &str| parse(&format!("{options}\n{SINGLE_HOST}")).isps[0].monitor.clone();
    assert_eq!(monitor(""), MonitorConfig::default());
    let second = Duration::from_secs(1);
    assert_eq!(
        parse(ROUTER).isps[0].monitor,
        MonitorConfig {
            interval: 2 * second,
            timeout: second / 2,
            down_after: 7,
            up_after: 20 * second,
            limits: Limits { loss: Some(Band { enter: 150, leave: 75 }), ..MonitorConfig::default().limits },
            ..MonitorConfig::default()
        }
    );
    let router = parse(ROUTER).isps[0].monitor.clone();
    assert_eq!(router.limits.loss, Some(Band { enter: 150, leave: 75 }));
    assert_eq!(router.long_down_after, 120 * second);
    let loss = |options: &str| monitor(options).limits.loss;
    assert_eq!(loss("min_packet_loss=5"), Some(Band { enter: 200, leave: 50 }));
    assert_eq!(loss("min_packet_loss=50\nmax_packet_loss=50"), Some(Band { enter: 500, leave: 490 }));
    assert_eq!(loss("max_packet_loss=0"), MonitorConfig::default().limits.loss);
    // The order of the options does not matter, and what has to be below or above another follows.
    let quick = monitor("min_successive_pkts_rcvd=10\ninterval_ms=20");
    assert_eq!((quick.interval, quick.suspect_interval), (second / 50, second / 50));
    assert_eq!(quick.up_after, second / 5);
    let slow = monitor("min_successive_pkts_rcvd=86400");
    assert_eq!((slow.up_after, slow.up_after_max), (86_400 * second, 86_400 * second));
}

#[test]
fn what_has_no_counterpart_stays_as_a_comment_with_name_and_value() {
    let toml = import(ROUTER).unwrap();
    assert!(toml.contains("\n# targets: www.example.org was pinged"), "{toml}");
    assert!(toml.contains("\n# targets: www.google.ca was pinged"), "{toml}");
}

#[test]
fn who_was_warned_by_mail_is_sent_mail() {
    let mail = |option: &str| parse(&format!("{SINGLE_HOST}\nwarn_email={option}")).mail;
    let to = |option: &str| mail(option).unwrap().to.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(to("root@localhost"), ["root@localhost"]);
    assert_eq!(to("root, admin@example.org me"), ["root@localhost", "admin@example.org", "me@localhost"]);
    assert!(parse(SINGLE_HOST).mail.is_none() && mail("").is_none());
    let server = mail("root").unwrap().server;
    assert_eq!((&*server.host, server.port), ("localhost", 25));
    assert!(mail("a@b@c").is_none());
    let toml = import(&format!("{SINGLE_HOST}\nwarn_email=a@b@c")).unwrap();
    assert!(toml.contains("\n# warn_email=a@b@c: not an address that mail can be sent to"), "{toml}");
}

#[test]
fn groups_become_those_of_the_firewall_which_is_on() {
    let firewall = |text: &str| {
        let toml = import(text).unwrap();
        let (_, firewall) = toml.split_once("\n[firewall]\nenabled = true\n").unwrap();
        firewall.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(firewall(ROUTER), ["groups = [[\"HOME\", \"OFFICE\", \":isp\"], [\":lan\"]]"]);
    // Nothing said: all LANs with each other and with all ISPs.
    assert_eq!(firewall("A a isp\nL l lan\n"), ["groups = [[\":lan\", \":isp\"]]"]);
    assert_eq!(
        firewall("forwarding_group=A :isp\nA a isp\nL l lan\n"),
        ["# forwarding_group=A :isp: ISPs do not open connections to anybody", "groups = []"]
    );
    assert_eq!(firewall("A a isp\nforwarding_group=:lan :isp\n"), Vec::<String>::new());
}

#[test]
fn every_option_of_foolsm_is_known() {
    // As in lsm/config.c, what belongs to a connection.
    let (numbers, texts) = (
        "unknown_up_notify max_packet_loss max_successive_pkts_lost min_packet_loss min_successive_pkts_rcvd \
         interval_ms timeout_ms check_arp ttl status long_down_time startup_acceleration startup_burst_pkts \
         startup_burst_interval debug max_successive_pkts_recvd",
        "name checkip eventscript notifyscript warn_email sourceip device queue long_down_email \
         long_down_notifyscript long_down_eventscript",
    );
    let numbers = numbers.split(' ').map(|name| (name, "77"));
    let texts = texts.split(' ').map(|name| (name, "/x \"y\" é"));
    for (name, value) in numbers.chain(texts) {
        let text = format!("{name}={value}\n{SINGLE_HOST}");
        let toml = import(&text).unwrap();
        assert!(is_nib(&text));
        parse(&toml);
        // A key of ours or a comment, one of the two.
        let note = toml.contains(&format!("\n# {name}={value}: "));
        assert_ne!(note, toml.contains("\n[monitor]\n"), "{name}:\n{toml}");
    }
}

#[test]
fn a_weight_of_nothing_becomes_a_backup() {
    let config = parse("A a0 isp 9.9.9.9 0\nB b0 isp 9.9.9.9 0\n");
    assert!(config.isps.iter().all(|isp| (isp.weight, isp.tier) == (1, 2)));
}

#[test]
fn a_file_is_known_by_its_form() {
    for nib in [ROUTER, SINGLE_HOST, "A a isp", "mode=balanced", " A a isp", "ttl=1\nx", "# x\n\nL l lan\n"] {
        assert!(is_nib(nib), "{nib}");
    }
    for other in [
        include_str!("../../dist/balance.toml"),
        "",
        "# A a isp\n",
        "mode = \"balanced\"\n",
        "mode = 'balanced'\n",
        "isp = [{ name = \"A\", device = \"a\" }]\n",
        "mode = balanced\n[[isp]]\n",
        "ttl=1\n  [isp.monitor]\n",
        "three plain words\n",
        "lan = isp # isp\n",
    ] {
        assert!(!is_nib(other), "{other}");
    }
}

#[test]
fn what_is_wrong_is_shown_where_it_is() {
    let mut failures = Vec::new();
    for (name, text, line, column, fragment) in malformed::CASES {
        match import(text) {
            Ok(toml) => failures.push(format!("{name}: taken:\n{toml}")),
            Err(error) => {
                let fault = error.fault().unwrap();
                if (fault.line, fault.column) != (*line, *column) || !fault.message.contains(fragment) {
                    failures.push(format!("{name}: wants {line}:{column} {fragment:?}:\n{error}"));
                }
                // Read directly it is the same, if it can be told at all what it is.
                if is_nib(text) {
                    let direct = Config::parse(text, Path::new("balance.conf")).unwrap_err();
                    assert_eq!(direct.to_string(), error.to_string());
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let error = import("CABLE eth0 isp\nDSL ppp0 isp 9.9.9.9 many\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "balance.conf:2:22: weight must be a whole number from 0 to 1000\n  |\n2 | DSL ppp0 isp 9.9.9.9 many\n  | \
         \u{20}                    ^^^^"
    );
}

#[test]
fn more_isps_than_there_can_be_are_refused() {
    let rows = |count: usize| (0..count).map(|i| format!("I{i} d{i} isp")).collect::<Vec<_>>().join("\n");
    assert_eq!(parse(&rows(63)).isps.len(), 63);
    let error = import(&rows(64)).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.line), Some(64), "{error}");
}

#[test]
fn a_weight_is_not_saved_into_it() {
    let error = set_weight(ROUTER, "CABLE", 2).unwrap_err().to_string();
    assert!(error.contains("balance-user import"), "{error}");
}
