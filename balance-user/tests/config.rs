//! The configuration from the outside: what is taken, what is refused and how that is shown, and what saving keeps.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "config/errors.rs"]
mod errors;
#[path = "config/malformed/mod.rs"]
mod malformed;
#[path = "config/monitor.rs"]
mod monitor;
#[path = "config/properties.rs"]
mod properties;
#[path = "config/save.rs"]
mod save;

use std::fs;
use std::path::Path;
use std::time::Duration;

use balance_common::Sticky;
use balance_user::config::policy::{Degraded, Failback, LastResort, RuleTarget, Weights};
use balance_user::config::{
    Acceleration, Attach, Band, ClampMss, Config, ConfigError, ControlConfig, Direction, FastPathConfig,
    FirewallConfig, ForwardConfig, Ipv6Mode, MailSecurity, MailServer, MeteredConfig, Mode, MonitorConfig,
    Period, Ports, Protocol, QuotaAction, QuotaConfig, QuotaRule, ReadableBy, RoutingConfig, WebConfig,
};

const SAMPLE: &str = include_str!("../../dist/balance.toml");
const MINIMAL: &str = "[[isp]]\nname = \"A\"\ndevice = \"a0\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("balance.toml"))
}

#[test]
fn the_sample_config_parses_and_shows_the_defaults() {
    let sample = parse(SAMPLE).unwrap();
    let isps: Vec<_> =
        sample.isps.iter().map(|isp| (&*isp.name, &*isp.device, isp.weight, isp.tier)).collect();
    assert_eq!(isps, [("CABLE", "eth0", 3, 1), ("DSL", "ppp0", 1, 1)]);
    assert_eq!(sample.lans.iter().map(|lan| &*lan.device).collect::<Vec<_>>(), ["eth1"]);

    let bare = parse(MINIMAL).unwrap();
    assert_eq!(sample.isps[0].monitor, bare.isps[0].monitor);
    assert_eq!(sample.isps[1].targets, bare.isps[0].targets);
    assert_eq!((sample.mode, sample.attach, sample.mark_mask), (bare.mode, bare.attach, bare.mark_mask));
    assert_eq!((sample.routing, sample.local), (bare.routing, bare.local));
    assert_eq!((sample.failback, sample.local_traffic), (bare.failback, bare.local_traffic));
    assert_eq!((sample.acceleration, sample.fast_path), (bare.acceleration, bare.fast_path));
    let groups = sample.firewall.groups.clone();
    assert_eq!(sample.firewall, FirewallConfig { groups, ..bare.firewall });
    assert_eq!((sample.reset, sample.routes, sample.scripts), (bare.reset, bare.routes, bare.scripts));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!((config.mode, config.attach, config.mark_mask), (Mode::Balanced, Attach::Auto, 0x3f00));
    assert_eq!(config.acceleration, Acceleration::Auto);
    assert_eq!(config.fast_path, FastPathConfig { lease: Duration::from_secs(1), flows: 32_768 });
    assert_eq!(config.routing, RoutingConfig { table: 1000, priority: 10_000 });
    assert!(config.lans.is_empty() && config.local.is_empty() && config.forwards.is_empty());
    assert!(config.local_traffic);
    let firewall = &config.firewall;
    assert!(!firewall.enabled && firewall.log && firewall.allow.is_empty());
    assert_eq!(firewall.ping.unwrap().to_string(), "10/second");
    assert_eq!((firewall.clamp_mss, firewall.rules.must_exist), (ClampMss::Auto, false));
    assert!(config.reset && config.routes.is_empty());
    assert_eq!(
        (config.scripts.folder, config.scripts.timeout),
        ("/etc/balance".into(), Duration::from_secs(10))
    );
    assert_eq!((config.mail, config.webhook), (None, None));
    let control = ControlConfig { group: "balance".to_owned(), readable_by: ReadableBy::Group };
    assert_eq!((config.control, config.metrics.listen, config.web), (control, None, WebConfig::default()));
    let isp = &config.isps[0];
    assert_eq!((isp.weight, isp.tier, isp.gateway_v4, isp.gateway_v6), (1, 1, None, None));
    assert_eq!(isp.monitor, MonitorConfig::default());
    let targets: Vec<_> = isp.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["1.1.1.1", "9.9.9.9", "2606:4700:4700::1111", "2620:fe::9"]);
}

#[test]
fn mail_and_webhook_need_little_and_take_much() {
    let config =
        parse(&format!("{MINIMAL}[mail]\nto = \"root@localhost\"\n[webhook]\nurl = \"http://[::1]/\"\n"));
    let Config { mail, webhook, .. } = config.unwrap();
    let (mail, webhook) = (mail.unwrap(), webhook.unwrap());
    let addresses: Vec<_> = mail.to.iter().chain([&mail.from]).map(ToString::to_string).collect();
    assert_eq!(addresses, ["root@localhost", "balance@localhost"]);
    let server = MailServer { host: "localhost".to_owned(), port: 25, security: MailSecurity::Plain };
    assert_eq!((mail.server, mail.login, mail.digest), (server, None, Duration::from_mins(1)));
    assert_eq!((webhook.timeout, webhook.headers.len()), (Duration::from_secs(10), 0));

    let config = parse(&format!(
        r#"{MINIMAL}
        [mail]
        to = ["Admin <admin@example.org>", "b@example.org"]
        from = "router@example.org"
        server = "starttls://mx.example.org"
        user = "router"
        password_file = "/etc/balance/password"
        digest = "5m"
        [webhook]
        url = "https://example.org/hook?a=b"
        timeout = "500ms"
        headers = {{ Authorization = "Bearer x", x-priority = "1" }}
        "#
    ));
    let Config { mail, webhook, .. } = config.unwrap();
    let (mail, webhook) = (mail.unwrap(), webhook.unwrap());
    assert_eq!(mail.to[0].to_string(), "Admin <admin@example.org>");
    assert_eq!((mail.to.len(), mail.from.to_string()), (2, "router@example.org".to_owned()));
    let server =
        MailServer { host: "mx.example.org".to_owned(), port: 587, security: MailSecurity::StartTls };
    assert_eq!((mail.server, mail.digest), (server, Duration::from_mins(5)));
    assert_eq!(mail.login, Some(("router".to_owned(), "/etc/balance/password".into())));
    assert_eq!(
        (webhook.url.to_string(), webhook.timeout),
        ("https://example.org/hook?a=b".to_owned(), Duration::from_millis(500))
    );
    let headers: Vec<_> =
        webhook.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("authorization", "Bearer x"), ("x-priority", "1")]);
}

#[test]
fn what_listens_is_read() {
    let config = parse(&format!(
        r#"{MINIMAL}
        [control]
        group = "adm"
        readable_by = "all"
        [metrics]
        listen = "[::]:9686"
        [web]
        listen = "192.168.1.1:8686"
        hosts = ["Router.lan", "router"]
        token_file = "/etc/balance/token"
        "#
    ));
    let Config { control, metrics, web, .. } = config.unwrap();
    assert_eq!(control, ControlConfig { group: "adm".to_owned(), readable_by: ReadableBy::All });
    assert_eq!(metrics.listen, Some("[::]:9686".parse().unwrap()));
    assert_eq!(web.listen, Some("192.168.1.1:8686".parse().unwrap()));
    assert_eq!(
        (web.hosts, web.token_file),
        (vec!["router.lan".to_owned(), "router".to_owned()], Some("/etc/balance/token".into()))
    );
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        mode = "failover"
        weights = "quality"
        attach = "clsact"
        acceleration = "xdp"
        reset = false
        fast_path = { lease = "250ms", flows = 0x10_0000 }
        local = ["10.9.0.0/16", "fd00::/8"]
        local_traffic = false
        monitor = { interval = "2s", quorum = 2, down_after = 7 }
        mark.mask = 0b110
        routing = { table = 256, priority = 1 }
        scripts = { folder = "/srv/balance", timeout = "1m" }
        [[isp]]
        name = "A"
        device = "a0"
        weight = 1_000
        tier = 255
        gateway = ["fe80::1", "192.0.2.1"]
        targets = []
        [[isp]]
        name = "B"
        device = "b0"
        gateway = "2001:db8::1"
        ipv6 = "npt"
        prefix = "2001:db8:b::/56"
        [isp.monitor]
        interval = "500ms"
        suspect_interval = "500ms"
        timeout = "1m"
        up_after = "1m 30s"
        silence = "10ms"
        flap_window = "1day"
        up_after_max = "90s"
        [[lan]]
        name = "C"
        device = "c0"
        [[route]]
        to = "192.168.100.0/24"
        device = "a0"
        gateway = "192.168.100.9"
        masquerade = true
        [[route]]
        to = "fd09::/64"
        device = "tun0"
        "#,
    )
    .unwrap();
    assert_eq!((config.mode, config.attach, config.mark_mask), (Mode::Failover, Attach::Clsact, 6));
    assert_eq!((config.acceleration, config.reset), (Acceleration::Xdp, false));
    assert_eq!(config.fast_path, FastPathConfig { lease: Duration::from_millis(250), flows: 1 << 20 });
    assert!(!config.local_traffic);
    assert_eq!(config.local, ["10.9.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    assert_eq!(config.routing, RoutingConfig { table: 256, priority: 1 });
    assert_eq!(config.lans[0].name, "C");
    assert_eq!(
        (config.scripts.folder, config.scripts.timeout),
        ("/srv/balance".into(), Duration::from_mins(1))
    );
    let [modem, vpn] = &config.routes[..] else { panic!("two routes") };
    assert_eq!((modem.to.to_string(), &*modem.device), ("192.168.100.0/24".to_owned(), "a0"));
    assert_eq!((modem.gateway, modem.masquerade), ("192.168.100.9".parse().ok(), true));
    assert_eq!((vpn.to.to_string(), vpn.gateway, vpn.masquerade), ("fd09::/64".to_owned(), None, false));
    let [a, b] = &config.isps[..] else { panic!("two ISPs") };
    assert_eq!((a.weight, a.tier, a.targets.len()), (1000, 255, 0));
    assert_eq!((a.gateway_v4, a.gateway_v6), ("192.0.2.1".parse().ok(), "fe80::1".parse().ok()));
    assert_eq!((b.gateway_v4, b.gateway_v6), (None, "2001:db8::1".parse().ok()));
    assert_eq!((a.ipv6, a.prefix), (Ipv6Mode::Masquerade, None));
    assert_eq!((b.ipv6, b.prefix), (Ipv6Mode::Npt, "2001:db8:b::/56".parse().ok()));
    let general = MonitorConfig {
        interval: Duration::from_secs(2),
        quorum: 2,
        down_after: 7,
        ..MonitorConfig::default()
    };
    assert_eq!(a.monitor, general);
    let own = MonitorConfig {
        interval: Duration::from_millis(500),
        suspect_interval: Duration::from_millis(500),
        timeout: Duration::from_mins(1),
        up_after: Duration::from_secs(90),
        silence: Duration::from_millis(10),
        flap_half_life: Duration::from_hours(24) / 5,
        up_after_max: Duration::from_secs(90),
        ..general
    };
    assert_eq!(b.monitor, own);
}

#[test]
fn a_quota_and_a_rate_need_little_and_take_much() {
    let metered = |keys: &str| parse(&format!("{MINIMAL}{keys}\n")).unwrap().isps[0].metered;
    assert_eq!(metered(""), MeteredConfig::default());
    let least = metered("quota = \"50 GB\"\nspill_over = \"40 Mbit/s\"");
    let month = QuotaRule { period: Period::Month { reset_day: 1 }, direction: Direction::Both };
    let quota = QuotaConfig { limit: 50_000_000_000, rule: month, action: QuotaAction::Warn, warn: Some(80) };
    assert_eq!(least.quota, Some(quota));
    assert_eq!(least.spill_over, Some(Band { enter: 40_000_000, leave: 30_000_000 }));
    let most = metered(
        "quota = \"1 GiB\"\nquota_reset_day = 31\nquota_direction = \"upload\"\nquota_warn = \"off\"\n\
         quota_action = \"demote\"\nspill_over = \"1.5Gbit/s\"\nspill_back = \"10 kbit/s\"",
    );
    let rule = QuotaRule { period: Period::Month { reset_day: 31 }, direction: Direction::Upload };
    let quota = QuotaConfig { limit: 1 << 30, rule, action: QuotaAction::Demote, warn: None };
    assert_eq!(most.quota, Some(quota));
    assert_eq!(most.spill_over, Some(Band { enter: 1_500_000_000, leave: 10_000 }));
    let daily = metered("quota = \"2 GB\"\nquota_period = \"day\"").quota.unwrap();
    assert_eq!(daily.rule.period, Period::Day);
}

#[test]
fn every_key_of_forwards_is_read_and_the_others_have_their_defaults() {
    let config = parse(&format!(
        "{MINIMAL}[[isp]]\nname = \"B\"\ndevice = \"b0\"\n{}",
        r#"
        [[forward]]
        port = [443, "5000-5100"]
        protocol = ["udp", "tcp"]
        to = "192.168.1.10"
        to_port = 8443
        isps = "b"
        hairpin = false
        [[forward]]
        port = 443
        to = "fd00::10"
        [[forward]]
        port = 443
        to = "192.168.1.10"
        isps = ["A"]
        "#
    ))
    .unwrap();
    let [full, bare, _] = &config.forwards[..] else { panic!("three forwards") };
    let isps = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let expected = ForwardConfig {
        ports: vec![Ports { first: 443, last: 443 }, Ports { first: 5000, last: 5100 }],
        protocols: vec![Protocol::Udp, Protocol::Tcp],
        to: "192.168.1.10".parse().unwrap(),
        to_port: Some(8443),
        isps: isps(&["B"]),
        hairpin: false,
    };
    assert_eq!(*full, expected);
    let expected = ForwardConfig {
        ports: vec![Ports { first: 443, last: 443 }],
        protocols: vec![Protocol::Tcp],
        to: "fd00::10".parse().unwrap(),
        to_port: None,
        isps: isps(&["A", "B"]),
        hairpin: true,
    };
    assert_eq!(*bare, expected);
}

#[test]
fn every_key_of_the_firewall_is_read() {
    let lans = "[[lan]]\nname = \"HOME\"\ndevice = \"l0\"\n[[lan]]\nname = \"OFFICE\"\ndevice = \"l1\"\n";
    let with = |rest: &str| parse(&format!("{MINIMAL}{lans}[firewall]\n{rest}")).unwrap().firewall;
    let firewall = with(
        "enabled = true\nping = \"3/minute\"\nlog = false\nallow = [\"tcp/22\", \"udp/60000-61000\"]\n\
         rules = \"/etc/own.d\"\ngroups = [[\"home\", \":isp\"], [\"OFFICE\", \"a\"], [\":lan\"]]\nclamp_mss = \"on\"\n",
    );
    assert!(firewall.enabled && !firewall.log);
    assert_eq!(firewall.ping.unwrap().to_string(), "3/minute");
    let allow: Vec<_> = firewall.allow.iter().map(|s| (s.protocol, s.ports.first, s.ports.last)).collect();
    assert_eq!(allow, [(Protocol::Tcp, 22, 22), (Protocol::Udp, 60_000, 61_000)]);
    assert_eq!((&*firewall.rules.path, firewall.rules.must_exist), (Path::new("/etc/own.d"), true));
    let groups: Vec<_> =
        firewall.groups.iter().map(|group| (group.lans.join(" "), group.isps.join(" "))).collect();
    let expected = [("HOME", "A"), ("OFFICE", "A"), ("HOME OFFICE", "")];
    assert_eq!(groups, expected.map(|(lans, isps)| (lans.to_owned(), isps.to_owned())));
    assert_eq!(firewall.clamp_mss, ClampMss::On);

    assert_eq!(with("ping = \"off\"\n").ping, None);
    assert_eq!(with("groups = []\n").groups, []);
    let all = &with("").groups[0];
    assert_eq!((all.lans.join(" "), all.isps.join(" ")), ("HOME OFFICE".to_owned(), "A".to_owned()));
}

#[test]
fn own_rules_are_the_folders_nft_files_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for name in ["20-b.nft", "10-a.nft", ".hidden.nft", "notes.txt", "10-a.nft~"] {
        write(name, name);
    }
    let config = |rest: &str| {
        let text = format!("{MINIMAL}[firewall]\nrules = \"{}\"\n{rest}", folder.path().display());
        write("balance.toml", &text);
        Config::load(&folder.path().join("balance.toml"))
    };
    let names =
        |config: Config| config.firewall.own_rules.into_iter().map(|own| own.text).collect::<Vec<_>>();
    assert_eq!(names(config("enabled = true\n").unwrap()), ["10-a.nft", "20-b.nft"]);
    assert_eq!(names(config("").unwrap()), Vec::<String>::new(), "the firewall is off");
    fs::create_dir(folder.path().join("30-c.nft")).unwrap();
    let error = config("enabled = true\n").unwrap_err().to_string();
    assert!(error.contains("30-c.nft: ") && error.contains("`rules` of [firewall]"), "{error}");
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_no_error() {
    assert_eq!(
        parse(&format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"))).unwrap(),
        parse(MINIMAL).unwrap()
    );
}

#[test]
fn as_many_isps_as_there_are_ids_but_not_one_more() {
    use std::fmt::Write;
    let mut text = String::new();
    for number in 1..=63 {
        writeln!(text, "[[isp]]\nname = \"I{number}\"\ndevice = \"d{number}\"").unwrap();
    }
    assert_eq!(parse(&text).unwrap().isps.len(), 63);
    text.push_str("[[isp]]\nname = \"I64\"\ndevice = \"d64\"\n");
    let error = parse(&text).unwrap_err();
    assert_eq!(error.fault().unwrap().line, 63 * 3 + 1);
    assert!(error.to_string().contains("at most 63 ISPs"));
}

#[test]
fn where_no_mark_is_left_for_lost_connections_they_are_not_reset() {
    let with_mask = |mask: &str| parse(&format!("mark.mask = {mask}\n{MINIMAL}")).unwrap().reset;
    let isps = MINIMAL.matches("[[isp]]").count();
    assert_eq!(isps, 1);
    assert_eq!([with_mask("0x1"), with_mask("0x3"), with_mask("0x8000_0000")], [false, true, false]);
}

#[test]
fn a_good_file_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balance.toml");
    fs::write(&path, SAMPLE).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(SAMPLE).unwrap());
}

#[test]
fn failback_is_that_of_the_policy_or_else_that_of_all() {
    let text = |top: &str| {
        format!(
            r#"{top}
            isp = [{{ name = "A", device = "a0" }}]
            [[policy]]
            name = "default"
            failback = "now"
            [[policy]]
            name = "P"
            failback = "idle"
            [[policy]]
            name = "Q"
            failback = "idle"
            failback_idle = "1m 30s"
            [[policy]]
            name = "R"
            "#
        )
    };
    let idle = |seconds| Failback::Idle(Duration::from_secs(seconds));
    for (top, all) in [
        ("", Failback::Keep),
        ("failback = \"keep\"", Failback::Keep),
        ("failback = \"now\"", Failback::Now),
        ("failback = \"idle\"", idle(30)),
        ("failback = \"idle\"\nfailback_idle = \"1h\"", idle(3600)),
    ] {
        let config = Config::parse(&text(top), Path::new("x")).unwrap();
        assert_eq!(config.failback, all);
        let failbacks: Vec<_> = config.policies.iter().map(|policy| policy.failback).collect();
        assert_eq!(failbacks, [Some(Failback::Now), Some(idle(30)), Some(idle(90)), None]);
    }
}

#[test]
fn policies_and_rules_are_read() {
    let text = r#"
        isp = [{ name = "A", device = "a0" }, { name = "B", device = "b0" }]
        lan = [{ name = "HOME", device = "l0" }, { name = "GUESTS", device = "l1" }]
        [[policy]]
        name = "P"
        isps = ["b", { name = "A", weight = 7, tier = 2 }]
        mode = "failover"
        sticky = "source-destination"
        last_resort = "drop"
        degraded = "avoid"
        weights = "quality"
        [[policy]]
        name = "default"
        sticky = "source"
        [[rule]]
        source = ["192.168.1.7", "fd00::/8"]
        port = [443, "5000-5100"]
        lan = ["guests", "local"]
        to = "P"
        [[rule]]
        protocol = ["icmp", 47]
        dscp = ["EF", 10]
        to = "b"
        [[rule]]
        to = "bypass"
    "#;
    let config = Config::parse(text, Path::new("x")).unwrap();
    let names: Vec<&str> = config.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["default", "P", "B"]);
    assert_eq!(config.policies[0].sticky, Sticky::Source);
    let policy = &config.policies[1];
    assert_eq!(policy.mode, Some(Mode::Failover));
    assert_eq!((policy.sticky, policy.last_resort), (Sticky::SourceDestination, LastResort::Drop));
    assert_eq!((policy.degraded, policy.weights), (Degraded::Avoid, Some(Weights::Quality)));
    assert_eq!(["A", "B", "C"].map(|isp| policy.member(isp, 1, 1)), [Some((7, 2)), Some((1, 1)), None]);
    assert_eq!(config.policies[2].member("B", 3, 4), Some((3, 4)));
    let [first, second, third] = config.rules.as_slice() else { panic!("{:?}", config.rules) };
    assert_eq!((&first.protocols, &first.lans), (&vec![6, 17, 132], &vec![2, 0]));
    assert_eq!(first.destination_ports, [443..=443, 5000..=5100]);
    assert_eq!(
        first.source.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.168.1.7/32", "fd00::/8"]
    );
    assert_eq!((&second.protocols, &second.dscps), (&vec![1, 58, 47], &vec![46, 10]));
    let targets = [first.to, second.to, third.to];
    assert_eq!(targets, [RuleTarget::Policy(1), RuleTarget::Policy(2), RuleTarget::Bypass]);
}
