//! How much longer than said leases are.

use std::time::Duration;

use aya::maps::{Map, MapData, PerCpuArray};
use balance_common::fast::Confirmations;

use super::{DatapathError, Pins, map_error, open};

/// How much longer than said leases are, as there is more to confirm than the kernel is asked to.
pub struct Stretch(PerCpuArray<MapData, Confirmations>);

impl Stretch {
    /// Opens the map by its pin.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self(open(pins, "CONFIRMATIONS", Map::PerCpuArray)?))
    }

    /// By how much they are now, on the CPU where it is the most.
    pub fn now(&self) -> Result<Duration, DatapathError> {
        let all = self.0.get(&0, 0).map_err(map_error("CONFIRMATIONS"))?;
        Ok(Duration::from_nanos(all.iter().map(Confirmations::stretch).max().unwrap_or_default()))
    }
}
