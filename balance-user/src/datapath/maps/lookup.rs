//! Looking flows up in the flow cache, one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::{HashMap, Map, MapData};
use balance_common::fast::{Entry, Key, L4, Origin, V4, V6};

use super::flows::Life;
use super::{DatapathError, Maps, Pins, map_error};

/// The flow cache, to look into.
pub struct FlowCache {
    v4: HashMap<MapData, Key<V4>, Entry<V4>>,
    v6: HashMap<MapData, Key<V6>, Entry<V6>>,
    life: Life,
    /// The devices by which packets may come in.
    devices: Vec<u32>,
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
        let open = |name| MapData::from_pin(pins.map(name)).map_err(map_error(name));
        Ok(Self {
            v4: HashMap::try_from(Map::LruHashMap(open("FLOWS_V4")?)).map_err(map_error("FLOWS_V4"))?,
            v6: HashMap::try_from(Map::LruHashMap(open("FLOWS_V6")?)).map_err(map_error("FLOWS_V6"))?,
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
                    self.v4.get(&Key { source, destination, ports, origin }, 0).ok()
                })
                .any(|entry| self.life.has(&entry)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => origins
                .filter_map(|origin| {
                    let (source, destination) = (v6(source), v6(destination));
                    self.v6.get(&Key { source, destination, ports, origin }, 0).ok()
                })
                .any(|entry| self.life.has(&entry)),
            _ => false,
        }
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
