//! Making the kernel look as the plan says, except for the eBPF side.

use std::fs;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use crate::config::RoutingConfig;
use crate::conntrack;
use crate::core::plan::{KernelPlan, ROUTE_PROTOCOL};
use crate::nat::nft;
use crate::netlink::{self, routes, rules};
use crate::sysctl::{Saved, SysctlError, SysctlFacts, liberal_conntrack};

use super::Instance;

const IPROUTE2: &str = "/etc/iproute2";

/// Carries out the kernel's part of plans.
#[derive(Debug)]
pub(super) struct Reconciler {
    sysctls: Saved,
    nft: nft::Installed,
    tables: RangeInclusive<u32>,
    priorities: Range<u32>,
    named: bool,
}

/// What is not as planned. The next round tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// A route or rule.
    #[error(transparent)]
    Netlink(#[from] netlink::NetlinkError),
    /// The nft table.
    #[error(transparent)]
    Nft(#[from] nft::NftError),
    /// A sysctl.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The names of our tables, which are only for people.
    #[error("cannot write the names of the routing tables for `ip`: {0}")]
    Names(#[source] io::Error),
}

impl Reconciler {
    /// The reconciler of an instance, whose routing this is.
    pub(super) fn new(instance: &Instance, routing: RoutingConfig) -> Result<Self, SysctlError> {
        Ok(Self {
            sysctls: Saved::load(&instance.sysctls())?,
            nft: nft::Installed::default(),
            tables: tables(routing.table),
            priorities: priorities(routing.priority),
            named: false,
        })
    }

    /// The sysctls that plans depend on, as they would be without us.
    #[must_use]
    pub(super) fn facts(&self, isp_devices: &[&str]) -> SysctlFacts {
        self.sysctls.facts(isp_devices)
    }

    /// Makes routes, rules and sysctls as planned; quick, and writes nothing where all is well. The sysctls too,
    /// since a device that comes back has those of a new one.
    pub(super) async fn routing(&mut self, plan: &KernelPlan) -> Vec<ReconcileError> {
        let mut errors = self.sysctls(plan).await;
        let routes = routes::reconcile(&plan.routes, self.tables.clone()).await;
        let rules = rules::reconcile(&plan.rules, self.priorities.clone()).await;
        let networks = routes::reconcile_networks(&plan.networks, plan.networks_metric).await;
        let all = routes.into_iter().chain(rules).chain(networks);
        // Of a device that has just gone the news is on its way, and another plan with it.
        errors.extend(all.filter(|error| !error.is_no_device()).map(ReconcileError::from));
        errors
    }

    /// Makes the nft table as planned, with the sysctls that come with it, and the names.
    pub(super) async fn rest(&mut self, plan: &KernelPlan) -> Vec<ReconcileError> {
        let mut errors = Vec::new();
        match self.nft(plan).await {
            // It may have loaded conntrack, whose sysctls did not exist before.
            Ok(true) => errors.extend(self.sysctls(plan).await),
            Ok(false) => {}
            Err(error) => errors.push(error.into()),
        }
        if !self.named {
            match name_tables(plan) {
                Ok(()) => self.named = true,
                Err(error) => errors.push(ReconcileError::Names(error)),
            }
        }
        errors
    }

    /// Makes the nft table as planned. Says whether it had to.
    pub(super) async fn nft(&mut self, plan: &KernelPlan) -> Result<bool, nft::NftError> {
        let put = self.nft.ensure(&plan.nft).await?;
        if put {
            tracing::debug!(table = plan.nft.name, "nft table put in place");
        }
        Ok(put)
    }

    async fn sysctls(&mut self, plan: &KernelPlan) -> Vec<ReconcileError> {
        if self.sysctls.puts_back(&liberal_conntrack().key, &plan.sysctls) {
            free_tcp_of_windows().await;
        }
        self.sysctls.ensure(&plan.sysctls).into_iter().map(Into::into).collect()
    }

    /// The names must be written again: the ISPs have changed.
    pub(super) const fn rename(&mut self) {
        self.named = false;
    }
}

/// Takes away everything that reconcilers of the instance have made.
pub(super) async fn undo(
    instance: &Instance,
    nft_table: &str,
    routing: RoutingConfig,
) -> Vec<ReconcileError> {
    let mut errors: Vec<ReconcileError> =
        netlink::remove_all(tables(routing.table), priorities(routing.priority))
            .await
            .into_iter()
            .map(Into::into)
            .collect();
    errors.extend(nft::remove(nft_table).await.err().map(Into::into));
    match Saved::load(&instance.sysctls()) {
        Ok(mut saved) => {
            if saved.puts_back(&liberal_conntrack().key, &[]) {
                free_tcp_of_windows().await;
            }
            errors.extend(saved.restore().into_iter().map(ReconcileError::from));
        }
        Err(error) => errors.push(error.into()),
    }
    for file in names_files(nft_table) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.push(ReconcileError::Names(error));
            }
            _ => {}
        }
    }
    errors
}

/// What has gone fast survives that conntrack becomes strict again. That it fails is no reason not to go on: without such
/// requests the kernel may have no conntrack at all.
async fn free_tcp_of_windows() {
    match tokio::task::spawn_blocking(conntrack::free_tcp_of_windows).await {
        Ok(Ok(flows)) => tracing::debug!(flows, "conntrack goes on to accept TCP flows that went fast"),
        Ok(Err(error)) => tracing::warn!(%error, "TCP flows that went fast may break"),
        Err(_) => {}
    }
}

const fn tables(first: u32) -> RangeInclusive<u32> {
    first..=first + RoutingConfig::TABLES - 1
}

const fn priorities(first: u32) -> Range<u32> {
    first..first + RoutingConfig::PRIORITIES
}

/// Where `ip` looks for the names of tables and of routing protocols. Each instance has files of its own.
fn names_files(nft_table: &str) -> [PathBuf; 2] {
    ["rt_tables.d", "rt_protos.d"]
        .map(|folder| Path::new(IPROUTE2).join(folder).join(format!("{nft_table}.conf")))
}

/// Lets `ip` print names for our tables and our protocol number.
fn name_tables(plan: &KernelPlan) -> io::Result<()> {
    let names: Vec<String> =
        plan.table_names.iter().map(|(table, name)| format!("{table}\t{name}\n")).collect();
    let [tables, protocols] = names_files(&plan.nft.name);
    write_if_changed(&tables, &names.concat())?;
    write_if_changed(&protocols, &format!("{ROUTE_PROTOCOL}\tbalance\n"))
}

/// Where the folder is missing there is no iproute2 that would read the file.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    let is_there = fs::read_to_string(path).is_ok_and(|present| present == text);
    if is_there || path.parent().is_some_and(|folder| !folder.exists()) {
        Ok(())
    } else {
        fs::write(path, text)
    }
}

#[cfg(test)]
mod tests {
    use balance_lab::{Host, ready};

    use super::*;
    use crate::core::nft_table_name;
    use crate::core::plan::NftTable;

    const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

    /// Runs async code on a machine.
    fn block_on<T: Send>(host: &Host, what: impl AsyncFnOnce() -> T + Send) -> T {
        host.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(what())
        })
    }

    #[test]
    fn sysctls_that_come_with_the_nft_table_are_set_once_it_is_in_place_and_put_back() {
        if !ready() {
            return;
        }
        let host = Host::new("test").unwrap();
        let instance = Instance::new("test");
        let name = nft_table_name("test");
        // Counts packets of flows, for which conntrack is needed.
        let body = "chain c { type filter hook forward priority 0; ct state new counter; }\n".to_owned();
        let plan = KernelPlan {
            nft: NftTable { name: name.clone(), body },
            sysctls: vec![liberal_conntrack()],
            ..KernelPlan::default()
        };
        let errors = block_on(&host, async || {
            let mut reconciler = Reconciler::new(&instance, RoutingConfig::default()).unwrap();
            reconciler.rest(&plan).await
        });
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(host.sysctl(LIBERAL).unwrap(), "1");

        let errors = block_on(&host, async || undo(&instance, &name, RoutingConfig::default()).await);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(host.sysctl(LIBERAL).unwrap(), "0");
    }
}
