//! Making the kernel look as the plan says, except for the eBPF side.

use std::fs;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use crate::config::RoutingConfig;
use crate::core::plan::{KernelPlan, ROUTE_PROTOCOL};
use crate::nat::nft;
use crate::netlink::{self, routes, rules};
use crate::sysctl::{Saved, SysctlError, SysctlFacts};

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
        let mut errors: Vec<ReconcileError> =
            self.sysctls.ensure(&plan.sysctls).into_iter().map(Into::into).collect();
        let routes = routes::reconcile(&plan.routes, self.tables.clone()).await;
        let rules = rules::reconcile(&plan.rules, self.priorities.clone()).await;
        errors.extend(routes.into_iter().chain(rules).map(ReconcileError::from));
        errors
    }

    /// Makes the nft table and the names as planned.
    pub(super) async fn rest(&mut self, plan: &KernelPlan) -> Vec<ReconcileError> {
        let mut errors: Vec<ReconcileError> = Vec::new();
        match self.nft.ensure(&plan.nft).await {
            Ok(true) => tracing::debug!(table = plan.nft.name, "nft table put in place"),
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
        Ok(mut saved) => errors.extend(saved.restore().into_iter().map(ReconcileError::from)),
        Err(error) => errors.push(error.into()),
    }
    for file in [names_file(routing.table), protocol_file()] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.push(ReconcileError::Names(error))
            }
            _ => {}
        }
    }
    errors
}

const fn tables(first: u32) -> RangeInclusive<u32> {
    first..=first + RoutingConfig::TABLES - 1
}

const fn priorities(first: u32) -> Range<u32> {
    first..first + RoutingConfig::PRIORITIES
}

/// Each block of tables has a file of its own, so that instances do not overwrite each other's.
fn names_file(first: u32) -> PathBuf {
    let name = if first == RoutingConfig::default().table {
        "balance.conf".to_owned()
    } else {
        format!("balance-{first}.conf")
    };
    Path::new(IPROUTE2).join("rt_tables.d").join(name)
}

/// Lets `ip` print names for our tables and our protocol number.
fn name_tables(plan: &KernelPlan) -> io::Result<()> {
    let Some((&first, _)) = plan.table_names.first_key_value() else { return Ok(()) };
    let tables: String = plan.table_names.iter().map(|(table, name)| format!("{table}\t{name}\n")).collect();
    write_if_changed(&names_file(first), &tables)?;
    write_if_changed(&protocol_file(), &format!("{ROUTE_PROTOCOL}\tbalance\n"))
}

fn protocol_file() -> PathBuf {
    Path::new(IPROUTE2).join("rt_protos.d/balance.conf")
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
