//! Metrics, as Prometheus sees them.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use balance_lab::http::Query;
use balance_lab::{Child, Lab, ready_with, wait_until};
use serde_json::Value;

const PORT: u16 = 9686;
const PROMETHEUS: u16 = 9090;
const RULES: &str = include_str!("../../../dist/balance.rules.yml");
/// How long Prometheus may take on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

fn config(lab: &Lab) -> String {
    format!("{}\n[metrics]\nlisten = \"127.0.0.1:{PORT}\"\n", lab.config())
}

fn scrape(lab: &Lab) -> String {
    let reply = Query::get("/metrics").at_port(lab.router(), PORT).unwrap();
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    reply.body
}

/// The value of the series that begins so.
fn value(metrics: &str, series: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no {series} in\n{metrics}")).trim().parse().unwrap()
}

fn prometheus(lab: &Lab) -> Child {
    // Without patience: as if all that time had passed.
    let rules: String = RULES
        .lines()
        .map(|line| match line.split_once("for: ") {
            Some((indent, _)) => format!("{indent}for: 1s\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let config = format!(
        "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
         rule_files: [rules.yml]\nscrape_configs:\n- job_name: balance\n  static_configs:\n  \
         - targets: ['127.0.0.1:{PORT}']\n"
    );
    lab.router().run(|| {
        std::fs::create_dir_all("/run/prometheus").unwrap();
        std::fs::write("/run/prometheus/rules.yml", rules).unwrap();
        std::fs::write("/run/prometheus/prometheus.yml", config).unwrap();
    });
    let mut command = lab.router().command("prometheus");
    command
        .args(["--config.file=/run/prometheus/prometheus.yml", "--storage.tsdb.path=/run/prometheus/data"]);
    command.arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    lab.router().spawn(command).unwrap()
}

/// The alerts that fire, and the ISPs that they are about.
fn firing(lab: &Lab) -> Vec<(String, String)> {
    let Ok(reply) = Query::get("/api/v1/alerts").at_port(lab.router(), PROMETHEUS) else { return Vec::new() };
    let json = reply.json().unwrap_or_default();
    let alerts = json["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let fires = |alert: &&Value| alert["state"] == "firing";
    let name = |alert: &Value| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["isp"]));
    alerts.iter().filter(fires).map(name).collect()
}

#[test]
fn metrics_please_promtool_and_an_alert_fires_when_an_isp_dies() {
    if !ready_with(&["promtool", "prometheus"]) {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&config(&lab)).unwrap();
    let _daemon = lab.start_up().unwrap();
    let first = scrape(&lab);
    let complaints = lab.router().feed("promtool", &["check", "metrics"], &first).unwrap();
    assert_eq!(complaints, "");
    let at_socket = Query::get("/metrics").at_socket(lab.router(), "/run/balance/main/control.sock").unwrap();
    assert_eq!(at_socket.body.lines().count(), first.lines().count());
    assert_eq!(Query::get("/v1/status").at_port(lab.router(), PORT).unwrap().status, 404);

    let _prometheus = prometheus(&lab);
    let sees = |query: &str| {
        let path = format!("/api/v1/query?query={query}");
        let reply = Query::get(&path).at_port(lab.router(), PROMETHEUS);
        let json = reply.ok().and_then(|reply| reply.json().ok()).unwrap_or_default();
        json["data"]["result"].as_array().map_or(0, Vec::len)
    };
    wait_until(TIMEOUT, "a scrape", || sees("balance_isp_up==1") == 2).unwrap();
    assert_eq!(sees("up==1"), 1);
    assert_eq!(firing(&lab), []);
    lab.isp("CABLE").die_silently().unwrap();
    let alert = ("BalanceIspDown".to_owned(), "CABLE".to_owned());
    wait_until(TIMEOUT, "the alert", || firing(&lab).contains(&alert)).unwrap();
    let after = scrape(&lab);
    assert_eq!(value(&after, "balance_isp_up{isp=\"CABLE\"}"), 0);
    assert_eq!(value(&after, "balance_isp_failovers_total{isp=\"CABLE\"}"), 1);
    assert_eq!(value(&after, "balance_isp_failovers_total{isp=\"DSL\"}"), 0);
    let sent = "balance_isp_packets_total{isp=\"DSL\",direction=\"transmit\",path=\"slow\"}";
    assert!(value(&after, sent) > 0);
    lab.isp("CABLE").revive().unwrap();
    wait_until(TIMEOUT, "the end of the alert", || !firing(&lab).contains(&alert)).unwrap();
}

#[test]
fn a_scrape_of_many_isps_is_quick() {
    if !ready_with(&["promtool"]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let mut config = config(&lab);
    // Their devices do not exist, but for the daemon they do not count less.
    for number in 2..32 {
        let _ = write!(config, "[[isp]]\nname = \"I{number}\"\ndevice = \"i{number}\"\n");
    }
    lab.write_config(&config).unwrap();
    let _daemon = lab.start(&[]).unwrap();
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let before = Instant::now();
            assert_eq!(value(&scrape(&lab), "balance_isp_tier{isp=\"I31\"}"), 1);
            before.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("a scrape of 32 ISPs: {:?} (median of 9)", times[4]);
}

#[test]
fn the_rules_please_promtool_and_fire_when_they_should() {
    if !ready_with(&["promtool"]) {
        return;
    }
    for arguments in
        [["check", "rules", "dist/balance.rules.yml"], ["test", "rules", "dist/balance.rules.test.yml"]]
    {
        let mut command = std::process::Command::new("promtool");
        let output =
            command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
