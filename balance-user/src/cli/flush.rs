//! `flush`: the fast path learns anew.

use anyhow::Context;
use balance_common::IspId;
use balance_common::layout::IspEntry;

use super::status::open_maps;
use super::{UsageError, change, output};
use crate::control::{ControlError, Request};
use crate::daemon::Instance;
use crate::datapath::Maps;

pub(super) fn flush(instance: &str, name: Option<&str>) -> anyhow::Result<()> {
    let mut maps = open_maps(instance)?;
    let isp = name.map(|name| isp_named(&maps, name)).transpose()?;
    // Before, because what is dropped may be learned anew while it is counted.
    let entries = maps.live_entries(isp)?;
    let request = Request::Flush { isp: name.map(str::to_owned) };
    match change::change(instance, name.unwrap_or_default(), &request) {
        Err(error) if matches!(error.downcast_ref(), Some(ControlError::NotRunning(_))) => {
            // A daemon that starts meanwhile would write to the same map.
            let _lock = Instance::new(instance).lock()?;
            maps.flush(isp)?;
        }
        asked => asked?,
    }
    output::print(&said(entries, name)).context("cannot print")
}

/// The ISP of that name.
pub(super) fn isp_named(maps: &Maps, name: &str) -> anyhow::Result<IspId> {
    let isps = maps.isps()?;
    let found = isps.iter().find(|(_, entry)| entry.name().eq_ignore_ascii_case(name));
    found.map(|(&isp, _)| isp).ok_or_else(|| {
        let isps = isps.values().map(IspEntry::name).collect();
        UsageError::NoSuchIsp { name: name.to_owned(), isps }.into()
    })
}

fn said(entries: u64, name: Option<&str>) -> String {
    let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
    let of = name.map(|name| format!(" of {name}")).unwrap_or_default();
    format!("dropped {entries}{of} of the flow cache\n")
}
