//! Putting everything back.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use balance_common::Family;
use tokio::task::spawn_blocking;

use crate::config::RoutingConfig;
use crate::conntrack::{self, IspMark};
use crate::control::{self, Request};
use crate::core::nft_table_name;
use crate::datapath::{self, Maps, Pins};

use super::{Instance, Lock, LockError, quotas, reconciler, scripts};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the instance's daemon, if there is one, and takes away everything that it has made: programs, rules, routes,
/// the nft table, maps; sysctls get back the values that they had. Says whether there was anything.
pub async fn stop(instance: &Instance) -> anyhow::Result<bool> {
    let pins = Pins::of(instance.name());
    if !pins.exist() && !instance.exists() {
        // What is in the kernel then is another instance's.
        return Ok(false);
    }
    let _lock = end_daemon(instance).await?;
    let routing = routing_of(&pins);
    let mut errors: Vec<String> = Vec::new();
    // Steering ends first: from here on the main table decides.
    errors
        .extend(datapath::detach(&pins, &instance.clsact()).await.into_iter().map(|error| error.to_string()));
    if let Err(error) = forget_lost(&pins).await {
        tracing::warn!(%error, "connections that have lost their ISP stay until they time out");
    }
    if let Err(error) = quotas::close(instance.name(), &pins) {
        tracing::warn!(%error, "what was used of quotas since the daemon saved it last is not counted");
    }
    let undone = reconciler::undo(instance, &nft_table_name(instance.name()), routing).await;
    errors.extend(undone.into_iter().map(|error| error.to_string()));
    if !errors.is_empty() {
        bail!("not everything could be put back; mend this and stop again:\n  {}", errors.join("\n  "));
    }
    let failed = scripts::after_stop(instance).await;
    pins.remove()?;
    instance.remove().context("cannot remove the files under /run")?;
    if !failed.is_empty() {
        bail!("everything has been put back, but not all scripts have worked:\n  {}", failed.join("\n  "));
    }
    Ok(true)
}

/// Where the routes and rules are: as the maps say, which outlive the config.
fn routing_of(pins: &Pins) -> RoutingConfig {
    let settings = Maps::open(pins).and_then(|maps| maps.settings()).unwrap_or_default();
    if settings.table == 0 {
        return RoutingConfig::default();
    }
    RoutingConfig { table: settings.table, priority: settings.priority }
}

/// Deletes the entries of connections that have lost their ISP, if the daemon has not come to that. Without the nft table
/// they would go on trying. An ISP that has their mark says that there are none.
async fn forget_lost(pins: &Pins) -> anyhow::Result<()> {
    let maps = Maps::open(pins)?;
    let mask = maps.settings()?.mark_mask;
    let Some(lost) = IspMark::lost(mask) else { return Ok(()) };
    if maps.isps()?.into_keys().any(|isp| IspMark::new(isp, mask) == Some(lost)) {
        return Ok(());
    }
    for family in Family::ALL {
        spawn_blocking(move || conntrack::delete_by_mark(lost, family)).await??;
    }
    Ok(())
}

async fn end_daemon(instance: &Instance) -> anyhow::Result<Lock> {
    // Not running, or not answering: the lock will tell.
    let _ = control::ask(instance, &Request::Quit);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match instance.lock() {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { pid, .. }) if Instant::now() >= deadline => {
                let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                bail!("the daemon (pid {pid}) does not end; kill it, then stop again");
            }
            Err(LockError::Held { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    }
}
