//! `run`: the daemon, or what it would do.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use balance_common::Family;
use balance_common::layout::PolicyEntry;

use super::args::Run;
use super::{UsageError, output, runtime};
use crate::config::Config;
use crate::config::policy::PolicyConfig;
use crate::core::Core;
use crate::core::network::Network;
use crate::core::plan::{Plan, Role};
use crate::daemon::{self, Instance};
use crate::sysctl::{self, Saved};
use crate::{nat, netlink};

pub(super) fn run(instance: &str, run: &Run) -> anyhow::Result<()> {
    let config = Config::load(&run.config).map_err(UsageError::from)?;
    let isps = || config.isps.iter().map(|isp| isp.name.clone());
    let mut only = Vec::new();
    for name in &run.names {
        match isps().find(|isp| isp.eq_ignore_ascii_case(name)) {
            Some(isp) => only.push(isp),
            None => return Err(UsageError::NoSuchIsp { name: name.clone(), isps: isps().collect() }.into()),
        }
    }
    let instance = Instance::new(instance);
    let runtime = runtime().context("cannot start")?;
    if run.dry_run {
        let text = runtime.block_on(dry_run(&instance, config, &only))?;
        return output::print(&text).context("cannot print");
    }
    let path = run.config.clone();
    // A task of its own: the future that a runtime blocks on is woken by way of the kernel, even by itself.
    let daemon = runtime.spawn(async move { Box::pin(daemon::run(&instance, &path, config, &only)).await });
    let result = runtime.block_on(daemon).context("the daemon ended early").flatten();
    // A look-up of a name that hangs in a thread of its own is not waited for.
    runtime.shutdown_background();
    result
}

/// The commands that would make what the daemon makes, if all ISPs (or those that are named) work.
async fn dry_run(instance: &Instance, config: Config, only: &[String]) -> anyhow::Result<String> {
    let network = netlink::watch::dump().await.context("cannot read the network")?;
    let devices: Vec<&str> = config.isps.iter().map(|isp| isp.device.as_str()).collect();
    let facts = Saved::load(&instance.sysctls())?.facts(&devices);
    let all: Vec<String> = config.isps.iter().map(|isp| isp.name.clone()).collect();
    let mut core = Core::new(config, &BTreeMap::new(), network.clone(), daemon::clock())?;
    core.force_only(if only.is_empty() { &all } else { only });
    let _ = core.advance(daemon::clock().instant);
    let plan = core.plan(instance.name(), &facts);
    let mut text = String::new();
    describe(&core, &plan, &network, &mut text)?;
    Ok(text)
}

fn describe(core: &Core, plan: &Plan, network: &Network, text: &mut String) -> std::fmt::Result {
    let kernel = &plan.kernel;
    writeln!(text, "# What `balance-user run` would do now. Nothing has been changed.")?;
    for line in sysctl::commands(&kernel.sysctls) {
        writeln!(text, "{line}")?;
    }
    let name =
        |index| network.links.get(&index).map_or_else(|| format!("if{index}"), |link| link.name.clone());
    for line in netlink::commands::commands(kernel, name) {
        writeln!(text, "{line}")?;
    }
    writeln!(text, "{}", nat::commands(&kernel.nft).trim_end())?;
    for attachment in &plan.attachments {
        let what = match attachment.role {
            Role::Lan => "steer the flows from",
            Role::Isp => "count the packets of",
        };
        writeln!(text, "# eBPF programs: {what} {}", attachment.device)?;
    }
    for ((policy, family), table) in &plan.maps.tables {
        let policy = plan
            .maps
            .policies
            .get(policy)
            .map(PolicyEntry::name)
            .filter(|name| name != PolicyConfig::DEFAULT);
        let policy = policy.map_or_else(String::new, |name| format!(" of {name}"));
        for (isp, entry) in &plan.maps.isps {
            let buckets = table.iter().filter(|&&owner| owner == isp.get()).count();
            let share = 100.0 * buckets as f64 / table.len() as f64;
            let isp = entry.name();
            writeln!(text, "# {} flows{policy} to {isp}: {share:.1} %", crate::core::family_name(*family))?;
        }
    }
    for family in Family::ALL {
        for (isp, why) in core.pathless(family) {
            writeln!(text, "# {} of {isp}: {why}", crate::core::family_name(family))?;
        }
    }
    Ok(())
}
