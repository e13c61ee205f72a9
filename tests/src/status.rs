//! What `balance-user status` says on a lab's router.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Lab, wait_until};

/// How long ISPs may take to become what they are waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything that `status --json` says.
///
/// # Errors
/// When the command fails.
pub fn read(lab: &Lab) -> anyhow::Result<Value> {
    let output = lab.balance(&["status", "--json"])?;
    ensure!(output.status.success(), "status ended with {}: {}", output.status, output.stderr);
    serde_json::from_str(&output.stdout).with_context(|| format!("not JSON: {}", output.stdout))
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
/// When that takes fifteen seconds, with what it says instead.
pub fn wait(lab: &Lab, name: &str, field: &str, value: &Value) -> anyhow::Result<()> {
    let mut last = Value::Null;
    wait_until(PATIENCE, &format!("{field} of {name} being {value}"), || {
        last = read(lab).unwrap_or_default();
        isp(&last, name).get(field) == Some(value)
    })
    .with_context(|| format!("status says {last:#}"))
}

/// Waits until every ISP is up in every family and has its share of the flows.
///
/// # Errors
/// When that takes fifteen seconds, with what it says instead.
pub fn wait_up(lab: &Lab) -> anyhow::Result<()> {
    let mut last = Value::Null;
    wait_until(PATIENCE, "all ISPs being up", || {
        last = read(lab).unwrap_or_default();
        lab.isps().iter().all(|known| {
            let isp = isp(&last, known.name());
            let share = isp.get("share").and_then(Value::as_f64).unwrap_or_default();
            // A family that does not work yet is a reason.
            let fine = isp.get("reason").is_some_and(Value::is_null);
            isp.get("state").is_some_and(|state| state == "up") && fine && share > 0.0
        })
    })
    .with_context(|| format!("status says {last:#}"))
}
