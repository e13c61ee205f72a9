//! A close look at one device: what it is, and what queues and filters packets there.

use std::collections::BTreeSet;

use netlink_packet_core::NlasIterator;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType};
use netlink_packet_route::tc::{TcHandle, TcHeader, TcMessage};

use super::NetlinkError;
use super::socket::{Frame, Socket};
use super::watch::link_request;

/// The length of `struct tcmsg`.
const TC_HEADER_LENGTH: usize = 20;
const TCA_KIND: u16 = 1;

/// What there is to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The device's name.
    pub name: String,
    /// Its packets start with an Ethernet header.
    pub ethernet: bool,
    /// What kind of virtual device it is, such as `veth` or `tun`; none for hardware.
    pub kind: Option<String>,
    /// The kinds of the qdiscs that its packets leave through, the root and those below.
    pub qdiscs: BTreeSet<String>,
    /// The filters of clsact or ingress qdiscs that packets pass on their way in.
    pub ingress: Vec<Filter>,
}

/// A tc filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its kind, such as `bpf` or `u32`.
    pub kind: String,
    /// Its priority (`pref`).
    pub priority: u16,
    /// Its number; 0 stands for all of this kind and priority.
    pub handle: u32,
}

/// Looks at the device of this index; none if there is none.
pub async fn look(index: u32) -> Result<Option<Sight>, NetlinkError> {
    let mut socket = Socket::open()?;
    let mut sight = None;
    let look = |frame: &Frame<'_>| sight = frame.parse().and_then(device);
    match socket.get(link_request(Some(index)), "look at a device", look).await {
        Err(error) if error.is_no_device() => return Ok(None),
        result => result?,
    }
    let Some(mut sight) = sight else { return Ok(None) };

    let mut message = TcMessage::with_index(index.cast_signed());
    let qdiscs = RouteNetlinkMessage::GetQueueDiscipline(message.clone());
    let each = |frame: &Frame<'_>| {
        // The kernel lists those of all devices.
        if let Some((header, kind)) = tc(frame).filter(|(header, _)| header.index.cast_unsigned() == index)
            && header.parent != TcHandle::INGRESS
        {
            sight.qdiscs.insert(kind);
        }
    };
    socket.dump(qdiscs, "list the qdiscs", each).await?;

    message.header.parent = TcHandle { minor: TcHandle::MIN_INGRESS, ..TcHandle::CLSACT };
    let filters = RouteNetlinkMessage::GetTrafficFilter(message);
    let each = |frame: &Frame<'_>| {
        if let Some((header, kind)) = tc(frame) {
            // The other half is the protocol.
            let priority = u16::try_from(header.info >> 16).unwrap_or_default();
            sight.ingress.push(Filter { kind, priority, handle: header.handle.into() });
        }
    };
    socket.dump(filters, "list the filters of a device", each).await?;
    Ok(Some(sight))
}

fn device(message: RouteNetlinkMessage) -> Option<Sight> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut sight =
        Sight { ethernet: message.header.link_layer_type == LinkLayerType::Ether, ..Sight::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => sight.name = name,
            LinkAttribute::LinkInfo(infos) => {
                sight.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(sight)
}

/// The header and the kind of a qdisc or filter. Its options are not looked at, of which there are too many to know.
fn tc(frame: &Frame<'_>) -> Option<(TcHeader, String)> {
    let header = TcHeader::parse(frame.payload).ok()?;
    let attributes = frame.payload.get(TC_HEADER_LENGTH..)?;
    let kind = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == TCA_KIND)?;
    Some((header, String::from_utf8_lossy(kind.value()).trim_end_matches('\0').to_owned()))
}
