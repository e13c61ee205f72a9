//! What each device can do for the fast path: by [`look`] the facts, by [`acceleration_of`] what follows from them.

mod choice;

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, TcAttachType};

pub use self::choice::{Choice, Kind, acceleration_of};
use crate::datapath;
use crate::netlink::device::Sight;
use crate::netlink::{self, NetlinkError};

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its packets start with an Ethernet header.
    pub ethernet: bool,
    /// What kind of virtual device it is, such as `veth`, `tun` or `bridge`; none for hardware.
    pub kind: Option<String>,
    /// What its driver can do for XDP now, bits `NETDEV_XDP_ACT_*`; none where the kernel cannot tell. Many drivers
    /// take packets from XDP only once they have an XDP program themselves, and a veth once its other end has one.
    pub xdp_features: Option<u64>,
    /// The kinds of the qdiscs that its packets leave through.
    pub qdiscs: BTreeSet<String>,
    /// Somebody else's program or filter that its packets pass on their way in, in words.
    pub foreign: Option<String>,
}

/// Looks at the device of this index; none if there is none. `ours` are the ids of the programs that are our own, see
/// [`datapath::Pins::programs`].
pub async fn look(index: u32, ours: &BTreeSet<u32>) -> Result<Option<Facts>, NetlinkError> {
    let Some(sight) = netlink::device::look(index).await? else { return Ok(None) };
    let xdp_features = netlink::xdp_features(index).await?;
    let foreign = foreign_program(&sight.name, ours).or_else(|| foreign_filter(&sight));
    let Sight { name, ethernet, kind, qdiscs, ingress: _ } = sight;
    Ok(Some(Facts { name, ethernet, kind, xdp_features, qdiscs, foreign }))
}

fn foreign_program(device: &str, ours: &BTreeSet<u32>) -> Option<String> {
    // A kernel without tcx has none.
    let (_, programs) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).ok()?;
    let program = programs.iter().find(|program| !ours.contains(&program.id()))?;
    let name = program.name_as_str().unwrap_or_default();
    Some(format!("another program (id {}, name {name})", program.id()))
}

fn foreign_filter(sight: &Sight) -> Option<String> {
    let filter = sight.ingress.iter().find(|filter| !datapath::is_our_filter(filter))?;
    Some(format!("another filter (priority {}, kind {})", filter.priority, filter.kind))
}
