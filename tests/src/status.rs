//! What `balance-user` says on a lab's router, and waiting for it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Daemon, Lab, Output, wait_until};

/// How long an ISP may take to get into a state.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Lab {
    /// Runs `balance-user` with these arguments on the router and returns what it printed.
    ///
    /// # Errors
    /// With what it said on stderr when it fails.
    pub fn balance_ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.balance(arguments)?;
        ensure!(status.success(), "balance-user {arguments:?} ended with {status}: {stderr}");
        Ok(stdout)
    }

    /// What `balance-user status --json` says.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> anyhow::Result<Value> {
        let json = self.balance_ok(&["status", "--json"])?;
        serde_json::from_str(&json).with_context(|| format!("no JSON: {json}"))
    }

    /// What it says of one ISP.
    ///
    /// # Errors
    /// When it fails or does not know the ISP.
    pub fn isp_status(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let isp = isp(&status, name);
        ensure!(!isp.is_null(), "no ISP {name} in {status:#}");
        Ok(isp.clone())
    }

    /// Waits until what it says of an ISP is as wanted.
    ///
    /// # Errors
    /// When it is not within ten seconds, with what it is instead.
    pub fn wait_isp(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let mut seen = String::new();
        let look = || match self.isp_status(name) {
            Ok(isp) => {
                seen = format!("{isp:#}");
                wanted(&isp)
            }
            Err(error) => {
                seen = format!("{error:#}");
                false
            }
        };
        wait_until(TIMEOUT, name, look).with_context(|| seen)
    }

    /// Waits until an ISP is in this state, as `status` calls it.
    ///
    /// # Errors
    /// When it is not within ten seconds.
    pub fn wait_state(&self, name: &str, state: &str) -> anyhow::Result<()> {
        self.wait_isp(name, |isp| isp.get("state").is_some_and(|it| it == state))
    }

    /// Waits until an ISP is up, in every family that it has.
    ///
    /// # Errors
    /// When it is not within ten seconds.
    pub fn wait_up(&self, name: &str) -> anyhow::Result<()> {
        self.wait_isp(name, |isp| {
            isp.get("state").is_some_and(|state| state == "up")
                && isp.get("reason").is_some_and(Value::is_null)
        })
    }

    /// Waits until all ISPs of the lab are up, in every family that they have.
    ///
    /// # Errors
    /// When one is not within ten seconds.
    pub fn wait_all_up(&self) -> anyhow::Result<()> {
        self.isps().iter().try_for_each(|isp| self.wait_up(isp.name()))
    }

    /// Starts the daemon with [`Lab::start`] and waits until all ISPs are up.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn start_up(&self) -> anyhow::Result<Daemon> {
        let daemon = self.start(&[])?;
        self.wait_all_up().with_context(|| format!("the daemon said:\n{}", daemon.stderr()))?;
        Ok(daemon)
    }

    /// The ISP that each answer shows its flow to use; none where there was no answer, or it came by no ISP.
    #[must_use]
    pub fn isps_of(&self, answers: &[io::Result<IpAddr>]) -> Vec<Option<&str>> {
        let name = |answer: &io::Result<IpAddr>| Some(self.isp_of(*answer.as_ref().ok()?)?.name());
        answers.iter().map(name).collect()
    }
}

/// What it says of the ISP of this name; null if nothing.
#[must_use]
pub fn isp<'a>(status: &'a Value, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    let isps = status.get("isps").and_then(Value::as_array);
    isps.into_iter()
        .flatten()
        .find(|isp| isp.get("name").is_some_and(|found| found == name))
        .unwrap_or(NOTHING)
}

/// Waits until it says of the ISP of this name that a field has this value.
///
/// # Errors
/// When it does not within ten seconds, with what it says instead.
pub fn wait(lab: &Lab, name: &str, field: &str, value: &Value) -> anyhow::Result<()> {
    lab.wait_isp(name, |isp| isp.get(field) == Some(value))
}
