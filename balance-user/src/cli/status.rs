//! `status`: how it stands, from the pinned maps; the daemon adds what only it knows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use balance_common::layout::{BucketTable, Device, Forced as StoredForced, IspEntry, IspState, PolicyEntry};
use balance_common::{Family, IspId, MarkMask, PolicyId, Sticky};
use nix::net::if_::if_indextoname;

use super::args::Status;
use super::output;
use super::report::{self, Daemon, Forced, Isp, Policy, Report, Share, State};
use super::screen::watch;
use crate::config::policy::{LAST_RESORTS, LastResort, STICKY};
use crate::conntrack;
use crate::control::{DeviceAcceleration, LocalTraffic, Request, Response, ask};
use crate::core::{Attempts, Quality, last_resort_of};
use crate::daemon::Instance;
use crate::datapath::{Maps, Pins, instances, marks_local_sockets};
use crate::devices::Kind;

/// The exit code of `status --check` where nothing can be told.
const UNTOLD: u8 = 3;

/// Returns the exit code.
pub(super) fn status(instance: &str, arguments: &Status) -> anyhow::Result<u8> {
    if arguments.check {
        let (code, line) = match gather(instance) {
            Ok(report) => report::check(&report),
            Err(error) => (UNTOLD, format!("{error:#}\n")),
        };
        output::print(&line).context("cannot print")?;
        return Ok(code);
    }
    let text = |width: Option<usize>| {
        let report = gather(instance)?;
        if arguments.json {
            Ok(report::render_json(&report)?)
        } else if arguments.short {
            Ok(report::render_short(&report))
        } else {
            Ok(report::render(&report, SystemTime::now(), width))
        }
    };
    match arguments.watch {
        None => output::print_styled(&text(output::width())?).context("cannot print")?,
        Some(interval) => watch(interval, text)?,
    }
    Ok(0)
}

/// How many flows each ISP has, where that can be counted; those that have none are left out.
pub(crate) struct Flows {
    all: Option<BTreeMap<IspId, u64>>,
    fast: Option<BTreeMap<IspId, u64>>,
}

impl Flows {
    /// Counts them, which takes as long as there are many.
    pub(crate) fn count(maps: &Maps) -> anyhow::Result<Self> {
        let mask = maps.settings()?.mark_mask;
        Ok(Self { all: conntrack::count_by_mark(mask).ok(), fast: maps.fast_flows().ok() })
    }

    fn of(isp: IspId, counts: Option<&BTreeMap<IspId, u64>>) -> Option<u64> {
        counts.map(|counts| counts.get(&isp).copied().unwrap_or(0))
    }
}

/// The maps of an instance that balances.
pub(super) fn open_maps(name: &str) -> anyhow::Result<Maps> {
    let pins = Pins::of(name);
    if !pins.exist() {
        let others = instances();
        if others.is_empty() {
            bail!(
                "instance {name} does not balance here (no maps in {}); this needs root",
                pins.folder().display()
            );
        }
        bail!("there is no instance {name}; there is {}", others.join(", "));
    }
    Ok(Maps::open(&pins)?)
}

/// How it stands with an instance.
pub(super) fn gather(name: &str) -> anyhow::Result<Report> {
    let instance = Instance::new(name);
    let maps = open_maps(name)?;
    let pid = instance.daemon();
    let told = pid.and_then(|_| ask(&instance, &Request::Quality).ok());
    assemble(name, &maps, pid, told, &Flows::count(&maps)?)
}

/// What the maps say, and what the daemon has answered to [`Request::Quality`].
pub(crate) fn assemble(
    name: &str,
    maps: &Maps,
    pid: Option<u32>,
    told: Option<Response>,
    flows: &Flows,
) -> anyhow::Result<Report> {
    let (quality, told, local_traffic, scripts, announcements) = match told {
        Some(Response::Quality { isps, acceleration, local_traffic, scripts, announcements }) => {
            (Some(isps), Some(acceleration), Some(local_traffic), scripts, announcements)
        }
        _ => (None, None, None, Vec::new(), Vec::new()),
    };
    let mask = maps.settings()?.mark_mask;
    let tables = Family::ALL.map(|family| maps.table(PolicyId::DEFAULT, family));
    let tables: Vec<BucketTable> = tables.into_iter().collect::<Result<_, _>>()?;
    let entries = maps.isps()?;
    let isps = entries
        .iter()
        .map(|(&id, entry)| {
            let quality = quality.as_ref().map(|isps| isps.get(&entry.name()).cloned().unwrap_or_default());
            isp(maps, id, entry, &tables, flows, quality.unwrap_or_default())
        })
        .collect::<anyhow::Result<Vec<Isp>>>()?;
    Ok(Report {
        instance: name.to_owned(),
        daemon: Daemon { pid, running: quality.is_some() },
        isps,
        policies: policies(maps, &entries, mask)?,
        acceleration: told.unwrap_or_else(|| acceleration(maps)),
        local_traffic: local_traffic.unwrap_or_else(|| local_traffic_left(name)),
        failed_scripts: scripts,
        failed_announcements: announcements,
    })
}

/// How the machine's own traffic is shared by what a daemon has left. Why not better, only the daemon knew.
fn local_traffic_left(name: &str) -> LocalTraffic {
    if marks_local_sockets(&Pins::of(name)) {
        LocalTraffic::by_socket()
    } else {
        LocalTraffic::by_route(None)
    }
}

/// How the devices are accelerated, as the maps say. Why not better, only the daemon knows.
fn acceleration(maps: &Maps) -> Vec<DeviceAcceleration> {
    let entry = |(index, device): (u32, Device)| {
        let kind = match (device.fast, device.xdp) {
            (0, _) => Kind::Off,
            (_, 0) => Kind::Tc,
            _ => Kind::Xdp,
        };
        let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
        Some(DeviceAcceleration { device: name, kind: kind.name().to_owned(), reason: None })
    };
    maps.device_entries().into_iter().filter_map(entry).collect()
}

fn isp(
    maps: &Maps,
    id: IspId,
    entry: &IspEntry,
    tables: &[BucketTable],
    flows: &Flows,
    quality: Quality,
) -> anyhow::Result<Isp> {
    let counters = maps.counters(id)?;
    let (tx, rx) = (counters.all_tx(), counters.all_rx());
    Ok(Isp {
        name: entry.name(),
        device: entry.device(),
        state: State::from(IspState::from(entry.state)),
        forced: match StoredForced::from(entry.forced) {
            StoredForced::No => None,
            StoredForced::Up => Some(Forced::Up),
            StoredForced::Down => Some(Forced::Down),
        },
        weight: Some(entry.weight),
        tier: Some(entry.tier),
        share: share(id, tables),
        gateway: gateway(entry),
        rtt_ms: quality.rtt_ms,
        jitter_ms: quality.jitter_ms,
        loss_percent: quality.loss_percent,
        flows: Flows::of(id, flows.all.as_ref()),
        fast_flows: Flows::of(id, flows.fast.as_ref()),
        tx_packets: Some(tx.packets),
        tx_bytes: Some(tx.bytes),
        rx_packets: Some(rx.packets),
        rx_bytes: Some(rx.bytes),
        fast_packets: Some(counters.fast_tx.and(counters.fast_rx).packets),
        slow_packets: Some(counters.tx.and(counters.rx).packets),
        syn_sent: Some(Attempts { syns: counters.syns, answers: counters.syn_answers }.asked()),
        syn_answered: Some(counters.syn_answers),
        received_ms_ago: quality.received_ms_ago,
        since: (entry.since != 0).then(|| UNIX_EPOCH + Duration::from_millis(entry.since)),
        reason: quality.reason,
        quota: quality.quota,
        spill_over: quality.spill_over,
    })
}

/// The policies, as their entries and tables in the maps are.
fn policies(maps: &Maps, isps: &BTreeMap<IspId, IspEntry>, mask: u32) -> anyhow::Result<Vec<Policy>> {
    let policy = |(id, entry): (PolicyId, PolicyEntry)| {
        let [v4, v6] = [maps.table(id, Family::V4)?, maps.table(id, Family::V6)?];
        let shares = isps.iter().map(|(&isp, entry)| Share {
            name: entry.name(),
            ipv4: part(isp.get(), &v4),
            ipv6: part(isp.get(), &v6),
        });
        let last_resort = MarkMask::new(mask).map_or(LastResort::Main, |mask| last_resort_of(mask, &entry));
        Ok(Policy {
            name: entry.name(),
            sticky: name_in(&STICKY, &Sticky::from(entry.sticky)),
            last_resort: name_in(&LAST_RESORTS, &last_resort),
            isps: shares.filter(|share| share.ipv4 > 0.0 || share.ipv6 > 0.0).collect(),
        })
    };
    maps.policies()?.into_iter().map(policy).collect()
}

fn name_in<T: PartialEq>(names: &[(&str, T)], value: &T) -> String {
    names.iter().find(|(_, one)| one == value).map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

/// The ISP's part of the buckets: of IPv4, or of IPv6 where IPv4 has none.
fn share(id: IspId, tables: &[BucketTable]) -> f64 {
    let table = tables.iter().find(|table| part(0, table) < 1.0);
    table.map_or(0.0, |table| part(id.get(), table))
}

/// The part of the buckets that have this owner.
fn part(owner: u8, table: &BucketTable) -> f64 {
    table.iter().filter(|&&one| one == owner).count() as f64 / table.len() as f64
}

fn gateway(entry: &IspEntry) -> Option<String> {
    if entry.gateway_v4 != [0; 4] {
        return Some(Ipv4Addr::from(entry.gateway_v4).to_string());
    }
    (entry.gateway_v6 != [0; 16]).then(|| Ipv6Addr::from(entry.gateway_v6).to_string())
}
