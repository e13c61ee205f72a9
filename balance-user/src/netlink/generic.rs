//! What a device can do for XDP, from the generic netlink family `netdev` (Linux 6.3).

use netlink_packet_core::{NetlinkSerializable, NlasIterator};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::NetlinkError;
use super::socket::{Frame, Socket};

/// The family that knows of all others (`GENL_ID_CTRL`), whose numbers the kernel gives out as it likes.
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// `struct genlmsghdr`: the command, the version, two bytes of nothing.
const HEADER_LENGTH: usize = 4;

/// What the driver of the device of this index can do for XDP, as bits `NETDEV_XDP_ACT_*`; none if the kernel cannot
/// tell or there is no such device.
pub async fn xdp_features(index: u32) -> Result<Option<u64>, NetlinkError> {
    let mut socket = Socket::open_for(NETLINK_GENERIC)?;
    let family = Request::new(CONTROL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_ne_bytes);
    let family = ask(&mut socket, family, "find the family netdev", CTRL_ATTR_FAMILY_ID, number).await?;
    let Some(family) = family else { return Ok(None) };
    let device = Request::new(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    let bits = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
    ask(&mut socket, device, "look at what a device can do", NETDEV_A_DEV_XDP_FEATURES, bits).await
}

/// Asks for one attribute of one thing; none if there is no such thing.
async fn ask<T>(
    socket: &mut Socket,
    request: Request,
    action: &str,
    wanted: u16,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, NetlinkError> {
    let mut found = None;
    let look = |frame: &Frame<'_>| {
        let attributes = frame.payload.get(HEADER_LENGTH..).unwrap_or_default();
        let attribute = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == wanted);
        found = attribute.and_then(|attribute| read(attribute.value()));
    };
    match socket.get(request, action, look).await {
        Err(NetlinkError::Refused { refusal, .. })
            if [libc::ENOENT, libc::ENODEV].contains(&refusal.errno) =>
        {
            Ok(None)
        }
        result => result.map(|()| found),
    }
}

/// A generic netlink request with one attribute.
struct Request {
    family: u16,
    /// What follows the netlink header.
    bytes: Vec<u8>,
}

impl Request {
    fn new(family: u16, command: u8, attribute: u16, value: &[u8]) -> Self {
        const VERSION: u8 = 1;
        let mut bytes = vec![command, VERSION, 0, 0];
        // Names and numbers are far shorter than what a length has room for.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self { family, bytes }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}
