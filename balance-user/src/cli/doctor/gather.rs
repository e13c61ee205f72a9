//! Looks at the machine. What cannot be looked at is left out; nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use balance_common::MarkMask;
use balance_common::layout::IspEntry;
use serde_json::Value;
use tokio::process::Command;

use crate::config::{Config, RoutingConfig};
use crate::core::nft_table_name;
use crate::daemon::Instance;
use crate::datapath::{Maps, Pins, cgroup2_mount, instances};
use crate::doctor::{Facts, Kernel, Networkd};
use crate::netlink::foreign::{foreign_routes, foreign_rules, mtus};
use crate::netlink::watch::Watcher;

/// Settings that are asked for whatever the devices.
const SETTINGS: [&str; 11] = [
    "net/core/bpf_jit_enable",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_acct",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_max_retrans",
    "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged",
    "net/netfilter/nf_conntrack_timestamp",
];
const OF_DEVICES: [(&str, &str); 3] = [("ipv4", "rp_filter"), ("ipv4", "forwarding"), ("ipv6", "accept_ra")];

pub(super) async fn facts(name: &str, path: &Path) -> Facts {
    let config = path.exists().then(|| Config::load(path).map_err(|error| first_line(&error.to_string())));
    let good = config.as_ref().and_then(|config| config.as_ref().ok());
    let routing = good.map(|config| config.routing).unwrap_or_default();
    let devices: Vec<String> = good
        .map(|config| {
            let isps = config.isps.iter().map(|isp| isp.device.clone());
            isps.chain(config.lans.iter().map(|lan| lan.device.clone())).collect()
        })
        .unwrap_or_default();
    let pins = Pins::of(name);
    let maps = pins.exist().then(|| Maps::open(&pins).ok()).flatten();
    let isps = maps.as_ref().and_then(|maps| maps.isps().ok()).unwrap_or_default();
    Facts {
        is_root: nix::unistd::geteuid().is_root(),
        balances: maps.is_some(),
        has_daemon: Instance::new(name).daemon().is_some(),
        nft_table: nft_table_name(name),
        gateways: isps.values().map(|isp| (isp.name(), gateways(isp))).collect(),
        instances: others(name),
        kernel: kernel().await,
        sysctls: sysctls(&devices),
        programs: programs(),
        networkd: networkd(),
        rules: foreign_rules().await.unwrap_or_default(),
        routes: foreign_routes(routing.table..=routing.table + RoutingConfig::TABLES - 1)
            .await
            .unwrap_or_default(),
        ruleset: ruleset().await,
        network: Watcher::start().await.map(|(_, network)| network).unwrap_or_default(),
        mtus: mtus().await.unwrap_or_default(),
        config,
    }
}

/// Of an error of the config, where it is and what.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn gateways(isp: &IspEntry) -> [bool; 2] {
    [isp.gateway_v4 != [0; 4], isp.gateway_v6 != [0; 16]]
}

/// The bits of the marks of other instances.
fn others(name: &str) -> BTreeMap<String, u32> {
    let mask = |other: &str| {
        let settings = Maps::open(&Pins::of(other)).ok()?.settings().ok()?;
        MarkMask::new(settings.mark_mask).map(MarkMask::bits)
    };
    let others = instances().into_iter().filter(|other| other != name);
    others.filter_map(|other| mask(&other).map(|mask| (other, mask))).collect()
}

async fn kernel() -> Kernel {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    Kernel {
        options: options(&release).await,
        has_modules: Path::new("/lib/modules").join(&release).exists(),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        has_cgroup2: read("/proc/self/mountinfo").is_some_and(|mounts| cgroup2_mount(&mounts).is_some()),
        has_nft: has_program("nft"),
        release,
    }
}

/// How the kernel was built: from the file that distributions install, or from the kernel itself.
async fn options(release: &str) -> Option<BTreeMap<String, char>> {
    let files = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    let text = if let Some(text) = files.iter().find_map(|file| read(file)) {
        text
    } else {
        let output = Command::new("gzip").args(["-dc", "/proc/config.gz"]).stdin(Stdio::null()).output();
        let output = output.await.ok().filter(|output| output.status.success())?;
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let option = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        let value = value.chars().next().filter(|value| matches!(value, 'y' | 'm'))?;
        Some((name.to_owned(), value))
    };
    Some(text.lines().filter_map(option).collect())
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|folder| folder.join(name).is_file())
}

fn sysctls(devices: &[String]) -> BTreeMap<String, String> {
    let of_devices = devices
        .iter()
        .flat_map(|device| OF_DEVICES.map(|(family, key)| format!("net/{family}/conf/{device}/{key}")));
    let keys = SETTINGS.into_iter().map(str::to_owned).chain(of_devices);
    keys.filter_map(|key| read(&format!("/proc/sys/{key}")).map(|value| (key, value))).collect()
}

/// The names of the running programs, which the kernel cuts after fifteen bytes.
fn programs() -> BTreeSet<String> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|folder| fs::read_to_string(folder.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// What the files of systemd-networkd say together (`networkd.conf(5)`): of files of one name the first folder's counts, and what
/// comes last in the order of the names.
fn networkd() -> Networkd {
    const FOLDERS: [&str; 4] = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        let dropped = fs::read_dir(Path::new(folder).join("networkd.conf.d")).into_iter().flatten().flatten();
        files.extend(dropped.map(|file| (file.file_name(), file.path())));
    }
    let main = FOLDERS.iter().rev().map(|folder| Path::new(folder).join("networkd.conf"));
    let main = main.into_iter().find(|file| file.exists());
    let files = main
        .into_iter()
        .chain(files.into_values().filter(|file| file.extension().is_some_and(|end| end == "conf")));
    let mut networkd = Networkd::default();
    for text in files.filter_map(|file| fs::read_to_string(file).ok()) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let is_no = matches!(value.trim().to_ascii_lowercase().as_str(), "no" | "false" | "off" | "0");
            match key.trim() {
                "ManageForeignRoutes" => networkd.spares_routes = is_no,
                "ManageForeignRoutingPolicyRules" => networkd.spares_rules = is_no,
                _ => {}
            }
        }
    }
    networkd
}

/// All of nft's rules, which only root may see.
async fn ruleset() -> Option<Value> {
    let output =
        Command::new("nft").args(["-j", "list", "ruleset"]).stdin(Stdio::null()).output().await.ok()?;
    if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
}

fn read(path: &str) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::debug!(path, %error, "cannot read");
            }
            None
        }
    }
}
