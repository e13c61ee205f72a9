//! Looking flows up in the flow cache, one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;
use aya::maps::{Array, Map, MapData};
use balance_common::fast::{Dimensions, Entry, Ip, Key, L4, Origin, Row, Slot, V4, V6};

use super::flows::Life;
use super::{DatapathError, Maps, Pins, open};

/// The flow cache, to look into.
pub struct FlowCache {
    v4: Flows<V4>,
    v6: Flows<V6>,
    seed: u64,
    life: Life,
    /// The devices by which packets may come in.
    devices: Vec<u32>,
}

/// That of a family.
struct Flows<A>
where
    Slot<A>: Pod,
{
    index: Array<MapData, Row>,
    slots: Array<MapData, Slot<A>>,
}

/// Packets that come in.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// The transport protocol.
    pub l4: L4,
    /// Source and destination port; the identifier of an echo, and its type in the upper byte.
    pub ports: (u16, u16),
}

impl FlowCache {
    /// Opens it by its pins, for packets that come in by these devices.
    pub fn open(pins: &Pins, maps: &Maps, devices: Vec<u32>) -> Result<Self, DatapathError> {
        Ok(Self {
            v4: Flows {
                index: open(pins, "INDEX_V4", Map::Array)?,
                slots: open(pins, "FLOWS_V4", Map::Array)?,
            },
            v6: Flows {
                index: open(pins, "INDEX_V6", Map::Array)?,
                slots: open(pins, "FLOWS_V6", Map::Array)?,
            },
            seed: maps.settings()?.seed,
            life: maps.life()?,
            devices,
        })
    }

    /// Do such packets go fast now? Not noticed are those that come in by a VLAN that is no device of its own.
    pub fn is_fast(&mut self, incoming: &Incoming) -> bool {
        self.life.go_on();
        let (source_port, destination_port) = incoming.ports;
        let [s0, s1] = source_port.to_be_bytes();
        let [d0, d1] = destination_port.to_be_bytes();
        let ports = u32::from_ne_bytes([s0, s1, d0, d1]);
        let origins = self.devices.iter().filter_map(|&device| Origin::new(device, 0, incoming.l4));
        match (incoming.source, incoming.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => origins
                .filter_map(|origin| {
                    let (source, destination) = (v4(source), v4(destination));
                    self.v4.get(self.seed, &Key { source, destination, ports, origin })
                })
                .any(|entry| self.life.has(&entry)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => origins
                .filter_map(|origin| {
                    let (source, destination) = (v6(source), v6(destination));
                    self.v6.get(self.seed, &Key { source, destination, ports, origin })
                })
                .any(|entry| self.life.has(&entry)),
            _ => false,
        }
    }
}

impl<A: Ip> Flows<A>
where
    Slot<A>: Pod,
{
    fn get(&self, seed: u64, key: &Key<A>) -> Option<Entry<A>> {
        let dimensions = Dimensions { rows: self.index.len(), slots: self.slots.len(), seed };
        let place = dimensions.place(key);
        let row = self.index.get(&place.row, 0).ok()?;
        let mut contents = row.slots(place).filter_map(|slot| self.slots.get(&slot, 0).ok()?.content());
        contents.find_map(|(its, entry)| (its == *key).then_some(entry))
    }
}

fn v4(address: Ipv4Addr) -> V4 {
    V4(u32::from_ne_bytes(address.octets()))
}

fn v6(address: Ipv6Addr) -> V6 {
    let octets = address.octets();
    let (words, _) = octets.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    V6([words.next().unwrap_or_default(), words.next().unwrap_or_default()])
}
