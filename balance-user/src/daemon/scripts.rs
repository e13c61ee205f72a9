//! When the daemon runs scripts, and what it tells them.

use std::path::Path;

use crate::config::Config;
use crate::core::Core;
use crate::scripts::{Call, Occasion, Scripts, Stage};

use super::{Instance, Signals};

/// Runs the scripts of an instance.
pub(super) struct ScriptRunner {
    instance: Instance,
    config_path: String,
    scripts: Scripts,
}

impl ScriptRunner {
    pub(super) fn new(instance: &Instance, config_path: &Path) -> Self {
        let config_path = config_path.display().to_string();
        Self { instance: instance.clone(), config_path, scripts: Scripts::default() }
    }

    /// What runs them, and knows which have failed.
    pub(super) fn scripts(&self) -> Scripts {
        self.scripts.clone()
    }

    /// Before balancing begins: nothing is balanced yet, so this is waited for. False if a signal says not to begin.
    pub(super) async fn before(&self, core: &Core, signals: &mut Signals) -> bool {
        let call = self.call(core, Occasion::Start);
        tokio::select! {
            () = self.scripts.run(&call, &[Stage::PreRun]) => true,
            _ = signals.terminate.recv() => false,
            _ = signals.interrupt.recv() => false,
        }
    }

    /// When everything is in place; in the background, because ISPs may fail meanwhile. A daemon that has taken over from
    /// another one has not waited for the scripts that come before.
    pub(super) fn after(&self, core: &Core, occasion: Occasion, has_run_before: bool) {
        let call = self.call(core, occasion);
        if let Err(error) = call.save(&self.instance.scripts()) {
            tracing::warn!(%error, "`stop` will not know where the scripts are");
        }
        let before = if has_run_before { &[][..] } else { &[Stage::PreRun] };
        self.scripts.start(call, [before, &Stage::AFTER].concat());
    }

    /// What has failed, a line each.
    pub(super) fn failures(&self) -> Vec<String> {
        self.scripts.failures()
    }

    fn call(&self, core: &Core, occasion: Occasion) -> Call {
        let Config { isps, lans, scripts, .. } = core.config();
        let list = |items: &mut dyn Iterator<Item = &str>| items.collect::<Vec<_>>().join(" ");
        let environment = [
            ("BALANCE_INSTANCE", self.instance.name().to_owned()),
            ("BALANCE_CONFIG", self.config_path.clone()),
            ("BALANCE_ISPS", list(&mut isps.iter().map(|isp| &*isp.name))),
            ("BALANCE_ISP_DEVICES", list(&mut isps.iter().map(|isp| &*isp.device))),
            ("BALANCE_ISPS_UP", list(&mut core.usable())),
            ("BALANCE_LANS", list(&mut lans.iter().map(|lan| &*lan.name))),
            ("BALANCE_LAN_DEVICES", list(&mut lans.iter().map(|lan| &*lan.device))),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        Call { folder: scripts.folder.clone(), timeout: scripts.timeout, environment }.on(occasion)
    }
}

/// Runs the scripts for after `stop`, as the daemon has left word. Says what has failed.
pub(super) async fn after_stop(instance: &Instance) -> Vec<String> {
    match Call::load(&instance.scripts()) {
        Ok(None) => Vec::new(),
        Ok(Some(call)) => {
            let scripts = Scripts::default();
            scripts.run(&call.on(Occasion::Stop), &[Stage::PostStop]).await;
            scripts.failures()
        }
        Err(error) => vec![format!("cannot read {}: {error}", instance.scripts().display())],
    }
}
