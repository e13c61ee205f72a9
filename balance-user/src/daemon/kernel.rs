//! The daemon's hands: everything that it has in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use balance_common::layout::IspEntry;
use balance_common::{Family, IspId, PolicyId};
use tokio::sync::mpsc;

use crate::announce::Announcer;
use crate::config::Config;
use crate::conntrack::{self, IspMark};
use crate::control::tallies::Tallies;
use crate::control::{DeviceAcceleration, LocalTraffic};
use crate::core::plan::{Plan, ProberPlan};
use crate::core::{Attempts, Core, Effect, Fingerprint, Reading, Traffic, nft_table_name};
use crate::datapath::{Datapath, DatapathError, Maps, Pins, Stretch};
use crate::monitor::{Outcome, Prober};
use crate::nat;
use crate::sysctl::SysctlFacts;

use super::acceleration::Accelerator;
use super::consequences::Consequences;
use super::failback::Failbacks;
use super::reconciler::Reconciler;
use super::resets::Resets;
use super::{Instance, RETRY_INTERVAL, Scope};

/// The least time between two looks at nft's ruleset.
const NFT_PAUSE: Duration = Duration::from_millis(500);

/// Everything that the daemon has in the kernel.
pub(super) struct Kernel {
    instance: String,
    mask: u32,
    datapath: Datapath,
    maps: Maps,
    accelerator: Accelerator,
    local_traffic: LocalTraffic,
    reconciler: Reconciler,
    resets: Resets,
    failbacks: Failbacks,
    nft_changes: mpsc::Receiver<()>,
    probers: BTreeMap<(IspId, Family), (ProberPlan, Prober)>,
    outcomes: mpsc::Sender<Outcome>,
    applied: Option<(Vec<Fingerprint>, Plan)>,
    facts: SysctlFacts,
    retry_at: Option<Instant>,
    /// Failures of the round before: each is told of once.
    told: BTreeSet<String>,
    consequences: Consequences,
    announcer: Announcer,
    tallies: Tallies,
}

impl Kernel {
    /// Loads the programs, taking over what an earlier daemon has left.
    pub(super) fn open(
        instance: &Instance,
        config: &Config,
        outcomes: mpsc::Sender<Outcome>,
        announcer: Announcer,
    ) -> anyhow::Result<Self> {
        let (pins, flows) = (Pins::of(instance.name()), config.fast_path.flows);
        let datapath = Datapath::load(pins, config.attach, instance.clsact(), flows)?;
        let stretch = Stretch::open(datapath.pins())?;
        let reconciler = Reconciler::new(instance, config.routing)?;
        let resets = Resets::new(config.mark_mask, config.reset);
        Ok(Self {
            instance: instance.name().to_owned(),
            mask: config.mark_mask,
            maps: datapath.maps()?,
            accelerator: Accelerator::default(),
            local_traffic: LocalTraffic::by_route(None),
            datapath,
            facts: reconciler.facts(&isp_devices(config)),
            reconciler,
            failbacks: Failbacks::new(resets.teller(), stretch),
            resets,
            nft_changes: watch_nft(),
            probers: BTreeMap::new(),
            outcomes,
            applied: None,
            retry_at: None,
            told: BTreeSet::new(),
            consequences: Consequences::default(),
            announcer,
            tallies: Tallies::default(),
        })
    }

    /// What an earlier daemon knew of the ISPs.
    pub(super) fn left(&self) -> Result<BTreeMap<IspId, IspEntry>, DatapathError> {
        self.maps.isps()
    }

    /// The names of the policies that an earlier daemon had.
    pub(super) fn left_policies(&self) -> Result<BTreeMap<PolicyId, String>, DatapathError> {
        Ok(self.maps.policies()?.into_iter().map(|(id, entry)| (id, entry.name())).collect())
    }

    /// How the devices are accelerated.
    pub(super) fn acceleration(&self) -> Vec<DeviceAcceleration> {
        self.accelerator.report()
    }

    /// How the traffic of the machine itself is shared.
    pub(super) fn local_traffic(&self) -> LocalTraffic {
        self.local_traffic.clone()
    }

    /// Who does not take what is announced to them, a line each.
    pub(super) fn failed_announcements(&self) -> Vec<String> {
        self.announcer.failures()
    }

    /// What has been counted since the start.
    pub(super) fn tallies(&self) -> Tallies {
        self.tallies.clone()
    }

    /// Gives what is being announced a moment, at the end.
    pub(super) async fn finish(self) {
        self.announcer.finish().await;
    }

    /// When to try again what failed; none if nothing did.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns when somebody has changed nft's ruleset, or flows have been taken away from an ISP: of that the fast path does not
    /// know, so what it has learned of the ISP is void. Says what to compare with the plan.
    pub(super) async fn changed(&mut self) -> Scope {
        tokio::select! {
            Some(()) = self.nft_changes.recv() => Scope::Everything,
            Some(isp) = self.failbacks.left() => {
                if let Err(error) = self.maps.flush_to(isp) {
                    tracing::warn!(%error, isp = isp.get(), "flows that go back to their ISP may do so a lease later");
                }
                Scope::Changes
            }
            else => std::future::pending().await,
        }
    }

    /// Puts the nft table in place. To be done before anything is steered: flows that leave by another ISP than
    /// before, but unmasqueraded, would be lost.
    pub(super) async fn install_nft(&mut self, core: &Core) -> anyhow::Result<()> {
        let plan = core.plan(&self.instance, &self.facts);
        self.reconciler.nft(&plan.kernel).await?;
        Ok(())
    }

    /// Whether the kernel would take the nft table of this config: own rules may be wrong.
    pub(super) async fn would_take(&self, config: &Config) -> Result<(), nat::NftError> {
        nat::nft::check(&nat::draft(&nft_table_name(&self.instance), config)).await
    }

    /// Voids what the fast path has learned of an ISP, or all.
    pub(super) fn flush(&mut self, isp: Option<IspId>) -> Result<(), DatapathError> {
        self.maps.flush(isp)
    }

    /// The ISPs may have other names or ids now.
    pub(super) const fn renamed(&mut self) {
        self.reconciler.rename();
    }

    /// The indices of the ISPs' devices.
    pub(super) fn isp_devices(&self) -> Vec<u32> {
        let Some((_, plan)) = &self.applied else { return Vec::new() };
        plan.maps.isps.values().map(|entry| entry.index).filter(|&index| index != 0).collect()
    }

    /// The traffic of the ISPs so far, and what became of the connections that were asked for by them.
    pub(super) fn traffic(&self) -> (BTreeMap<IspId, Traffic>, BTreeMap<IspId, Attempts>) {
        let isps = self.applied.iter().flat_map(|(_, plan)| plan.maps.isps.keys());
        let counters = isps.filter_map(|&isp| Some((isp, self.maps.counters(isp).ok()?)));
        counters
            .map(|(isp, counters)| {
                let traffic = Traffic { tx: counters.all_tx().packets, rx: counters.all_rx().packets };
                ((isp, traffic), (isp, Attempts { syns: counters.syns, answers: counters.syn_answers }))
            })
            .unzip()
    }

    /// How far the counters of an ISP have come.
    pub(super) fn reading(&self, isp: IspId) -> Result<Reading, DatapathError> {
        super::quotas::reading(&self.maps, isp)
    }

    /// Gives flows that are older than we are the mark of the ISP they use, so that they stay there.
    pub(super) async fn adopt_flows(&self, core: &Core) {
        self.resets.clean_up().await;
        let mask = self.mask;
        let isps: Vec<_> = core
            .addresses()
            .into_iter()
            .filter_map(|(isp, addresses)| Some((IspMark::new(isp, mask)?, addresses)))
            .collect();
        match tokio::task::spawn_blocking(move || conntrack::adopt(mask, &isps)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(flows)) => tracing::info!(flows, "flows that were there before stay with their ISP"),
            Ok(Err(error)) => tracing::warn!(%error, "flows that were there before may have to move"),
        }
    }

    /// Carries out the plan, and the effects when the way for them is prepared; then announces what has come of it.
    pub(super) async fn apply(&mut self, core: &Core, scope: Scope, effects: Vec<Effect>) {
        self.carry_out_plan(core, scope, effects).await;
        self.announcer.follow(core.config());
        for event in self.consequences.events(&self.instance, |name| core.isp_named(name), Instant::now()) {
            self.tallies.note(&event);
            self.announcer.publish(&event);
        }
    }

    async fn carry_out_plan(&mut self, core: &Core, scope: Scope, effects: Vec<Effect>) {
        if scope >= Scope::Routing {
            self.facts = self.reconciler.facts(&isp_devices(core.config()));
        }
        self.resets.set_wanted(core.config().reset);
        let fingerprint = core.fingerprint();
        let unchanged = self.applied.as_ref().is_some_and(|(applied, _)| *applied == fingerprint);
        if scope == Scope::Changes && unchanged {
            self.carry_out(effects).await;
            self.resets.tell();
            return;
        }
        self.tallies.reconciliations += u64::from(scope == Scope::Everything);
        let mut plan = core.plan(&self.instance, &self.facts);
        self.accelerator.equip(&mut plan.maps.devices);
        let before = self.applied.replace((fingerprint, plan.clone())).map(|(_, plan)| plan);
        if let Some(before) = &before {
            let isps: Vec<IspId> = plan.maps.isps.keys().copied().collect();
            self.consequences.moved(&before.maps.tables, &plan.maps.tables, &isps, Instant::now());
        }
        let mut errors = Failures::default();
        errors.take(self.maps.apply(&plan.maps).err());
        match self.maps.settings() {
            Ok(settings) => self.failbacks.follow(core, &plan.maps, settings.seed, self.resets.lost()),
            Err(error) => errors.take([error]),
        }
        let (probes, urgent): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| matches!(effect, Effect::Probe { .. }));
        let (late, urgent): (Vec<_>, Vec<_>) = urgent
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Renumbered { .. } | Effect::Returned { .. }));
        self.carry_out(urgent.clone()).await;
        let kernel_changed = before.as_ref().is_none_or(|before| before.kernel != plan.kernel);
        if scope >= Scope::Routing || kernel_changed {
            errors.take(self.reconciler.routing(&plan.kernel).await);
        }
        self.resets.tell();
        let nft_changed = before.as_ref().is_none_or(|before| before.kernel.nft != plan.kernel.nft);
        if scope == Scope::Everything || nft_changed {
            errors.take(self.reconciler.rest(&plan.kernel).await);
            // Until now, sockets of this machine that have the mark of a dead ISP could begin flows there.
            self.delete_flows_of(&urgent).await;
        }
        self.carry_out(late).await;
        errors.take(self.datapath.attach(&plan.attachments));
        let attached = before.as_ref().map(|before| &before.attachments);
        if scope >= Scope::Routing || attached != Some(&plan.attachments) {
            let wanted = core.config().acceleration;
            let (datapath, maps) = (&mut self.datapath, &mut self.maps);
            errors.take(self.accelerator.look(wanted, &plan.attachments, datapath, maps).await);
            self.accelerator.equip(&mut plan.maps.devices);
            errors.take(self.maps.apply(&plan.maps).err());
        }
        if scope == Scope::Everything {
            self.mark_local_sockets(core.config().local_traffic);
        }
        errors.take(self.renew_probers(&plan.probers));
        self.carry_out(probes).await;
        self.tell(errors, &plan);
    }

    /// Has the machine's own sockets marked, if that is wanted. That it cannot be is told once, and no failure: it happens where
    /// there is no cgroup2, and the default route is there.
    fn mark_local_sockets(&mut self, wanted: bool) {
        let now = match self.datapath.mark_local_sockets(wanted) {
            Ok(()) if wanted => LocalTraffic::by_socket(),
            Ok(()) => LocalTraffic::by_route(Some("`local_traffic` is false".to_owned())),
            Err(error) => LocalTraffic::by_route(Some(with_sources(&error))),
        };
        if wanted
            && now != self.local_traffic
            && let Some(reason) = &now.reason
        {
            tracing::warn!(
                "the weighted default route alone decides about this machine's own traffic: {reason}"
            );
        }
        self.local_traffic = now;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Probe { isp, family, probe } => {
                    if let Some((_, prober)) = self.probers.get_mut(&(isp, family)) {
                        prober.send(probe);
                    }
                }
                Effect::DeleteFlows { isp, family, reset } => {
                    let cut = self.resets.cut_loose(isp, family, reset).await;
                    self.consequences.cut(isp, cut, Instant::now());
                }
                Effect::Renumbered { isp } => {
                    tracing::info!(isp = isp.get(), "another prefix: its IPv6 flows start again");
                    self.resets.cut_loose(isp, Family::V6, true).await;
                    if let Err(error) = self.maps.flush(Some(isp)) {
                        tracing::error!(%error, isp = isp.get(), "flows go on with the old prefix for a lease");
                    }
                }
                Effect::Returned { isp, family } => self.failbacks.begin(isp, family),
                Effect::AnnounceQuota(change) => {
                    tracing::warn!(isp = change.isp, "{}", change.summary());
                    self.consequences.change(*change);
                }
                Effect::Announce { isp, state, reason, change } => {
                    // All of it in the message too, because `journalctl` shows nothing else.
                    let colon = if reason.is_empty() { "" } else { ": " };
                    tracing::info!(isp, state, "{isp} is {state}{colon}{reason}");
                    if let Some(change) = change {
                        self.consequences.change(*change);
                    }
                }
            }
        }
    }

    async fn delete_flows_of(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let &Effect::DeleteFlows { isp, family, reset } = effect {
                self.resets.cut_loose(isp, family, reset).await;
            }
        }
    }

    fn renew_probers(&mut self, plan: &BTreeMap<(IspId, Family), ProberPlan>) -> Vec<std::io::Error> {
        self.probers.retain(|path, (made, _)| plan.get(path) == Some(made));
        let mut errors = Vec::new();
        for (&(isp, family), wanted) in plan {
            if self.probers.contains_key(&(isp, family)) {
                continue;
            }
            match Prober::new(isp, family, wanted, self.outcomes.clone()) {
                Ok(prober) => drop(self.probers.insert((isp, family), (wanted.clone(), prober))),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Logs failures that are new, and sees to another try. What fails on a device that has just gone is no failure.
    fn tell(&mut self, Failures(errors): Failures, plan: &Plan) {
        self.tallies.failures += errors.len() as u64;
        for error in errors.difference(&self.told) {
            tracing::warn!(devices = plan.attachments.len(), "{error}; will try again");
        }
        self.retry_at = (!errors.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
        self.told = errors;
    }
}

/// Reports changes of nft's ruleset, at most two a second: on some machines it changes all the time, and to see
/// whether our table is still as it was takes a process.
fn watch_nft() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    match nat::Watch::new() {
        Ok(watch) => drop(tokio::spawn(async move {
            while watch.changed().await.is_ok() && sender.send(()).await.is_ok() {
                tokio::time::sleep(NFT_PAUSE).await;
            }
        })),
        Err(error) => tracing::warn!(%error, "cannot watch nft: that a table was flushed is noticed later"),
    }
    receiver
}

#[derive(Default)]
struct Failures(BTreeSet<String>);

impl Failures {
    fn take<E: std::error::Error>(&mut self, errors: impl IntoIterator<Item = E>) {
        self.0.extend(errors.into_iter().map(|error| with_sources(&error)));
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn isp_devices(config: &Config) -> Vec<&str> {
    config.isps.iter().map(|isp| isp.device.as_str()).collect()
}
