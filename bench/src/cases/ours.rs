//! balance itself.

use anyhow::ensure;
use balance_lab::{Daemon, Lab};
use serde_json::Value;

use super::Size;

/// How many flows the cache has room for by default.
const DEFAULT_FLOWS: u32 = 32_768;

/// All packets go through the kernel.
pub(super) fn off(lab: &Lab, size: Size) -> anyhow::Result<Option<Daemon>> {
    start(lab, size, "off")
}

/// Packets of known flows are forwarded where the stack begins.
pub(super) fn tc(lab: &Lab, size: Size) -> anyhow::Result<Option<Daemon>> {
    start(lab, size, "tc")
}

/// They are forwarded where the driver receives them.
pub(super) fn xdp(lab: &Lab, size: Size) -> anyhow::Result<Option<Daemon>> {
    start(lab, size, "xdp")
}

fn start(lab: &Lab, size: Size, acceleration: &str) -> anyhow::Result<Option<Daemon>> {
    lab.write_config(&config(lab, size, acceleration))?;
    let daemon = lab.start_up()?;
    let status = lab.status()?;
    let not = not_accelerated(&status, acceleration);
    ensure!(not.is_empty(), "not {acceleration}: {}", not.join(", "));
    Ok(Some(daemon))
}

fn config(lab: &Lab, size: Size, acceleration: &str) -> String {
    let flows = size.flows.max(DEFAULT_FLOWS);
    format!("acceleration = \"{acceleration}\"\n\n{}\n[fast_path]\nflows = {flows}\n", lab.config())
}

/// The devices that are not accelerated as wanted, and why.
fn not_accelerated(status: &Value, wanted: &str) -> Vec<String> {
    let devices = status.get("acceleration").and_then(Value::as_array).filter(|devices| !devices.is_empty());
    if devices.is_none() {
        return vec!["no device".to_owned()];
    }
    let text = |device: &Value, field: &str| {
        device.get(field).and_then(Value::as_str).unwrap_or("nothing is said").to_owned()
    };
    let wrong = devices.into_iter().flatten().filter(|device| text(device, "kind") != wanted);
    wrong.map(|device| format!("{} ({})", text(device, "device"), text(device, "reason"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_that_is_accelerated_otherwise_is_named() {
        let status = json!({ "acceleration": [
            { "device": "lan0", "kind": "xdp", "reason": null },
            { "device": "dsl0", "kind": "tc", "reason": "no XDP" },
        ] });
        assert_eq!(not_accelerated(&status, "xdp"), ["dsl0 (no XDP)"]);
        assert_eq!(not_accelerated(&json!({ "acceleration": [] }), "off"), ["no device"]);
    }
}
