//! Writing and reading frames.

use aya_ebpf::programs::XdpContext;
use balance_bench_ebpf::{HEADER_V4, HEADER_V6, Injection, PORT, checksum, fields};

use crate::maps::{INJECTION, next_flow};

/// Where the source port of an IPv4 packet of the benchmark is.
pub(crate) const SOURCE_PORT_V4: usize = 34;

/// Where a kind of header has what.
trait Layout {
    /// Length in bytes: a multiple of four, and two more.
    const LENGTH: usize;
    const IP_CHECKSUM: Option<usize>;
    /// The last 16 bits of the destination address. The source port follows.
    const DESTINATION: usize;
    const UDP_CHECKSUM: usize;
}

struct V4;
struct V6;

impl Layout for V4 {
    const LENGTH: usize = HEADER_V4;
    const IP_CHECKSUM: Option<usize> = Some(24);
    const DESTINATION: usize = 32;
    const UDP_CHECKSUM: usize = 40;
}

impl Layout for V6 {
    const LENGTH: usize = HEADER_V6;
    const IP_CHECKSUM: Option<usize> = None;
    const DESTINATION: usize = 52;
    const UDP_CHECKSUM: usize = 60;
}

/// Makes the next packet: writes its whole header, since the kernel uses frames again and the router has rewritten
/// them. Says what shall become of it.
#[inline(always)]
pub(crate) fn make(context: &XdpContext) -> Option<u32> {
    let injection = INJECTION.get(0)?;
    let flow = next_flow(injection.flows)?;
    if injection.version == 4 {
        write::<V4>(context, injection, flow)?;
    } else {
        write::<V6>(context, injection, flow)?;
    }
    Some(injection.verdict)
}

#[inline(always)]
fn write<L: Layout>(context: &XdpContext, injection: &Injection, flow: u32) -> Option<()> {
    let start = context.data();
    if start + L::LENGTH > context.data_end() {
        return None;
    }
    let put = |offset: usize, word: u16| {
        // SAFETY: the header was found to be within the frame, and every offset of a layout is within the header.
        unsafe { *((start + offset) as *mut u16) = word.to_be() }
    };
    let mut offset = 0;
    for &word in &injection.header {
        if offset + 4 > L::LENGTH {
            break;
        }
        // SAFETY: as above. Frames begin on a page's multiple of four.
        unsafe { *((start + offset) as *mut u32) = word }
        offset += 4;
    }
    let fields = fields(injection.destination, flow);
    let differs = u32::from(fields.destination) + u32::from(fields.port);
    put(L::DESTINATION, fields.destination);
    put(L::DESTINATION + 2, fields.port);
    if let Some(offset) = L::IP_CHECKSUM {
        put(offset, checksum(injection.ip_sum + u32::from(fields.destination)));
    }
    let udp = checksum(injection.udp_sum + differs);
    // In UDP 0 means that there is none.
    put(L::UDP_CHECKSUM, if udp == 0 { 0xffff } else { udp });
    Some(())
}

/// Whether a frame is a packet of the benchmark.
#[inline(always)]
pub(crate) fn is_ours(context: &XdpContext) -> bool {
    match read::<2>(context, 12) {
        Some([0x08, 0x00]) => is_udp_to_port(context, 23, 36),
        Some([0x86, 0xdd]) => is_udp_to_port(context, 20, 56),
        _ => false,
    }
}

/// The source port of a packet of the benchmark, if it is an IPv4 packet.
#[inline(always)]
pub(crate) fn source_port_v4(context: &XdpContext) -> Option<u16> {
    read(context, SOURCE_PORT_V4).map(u16::from_be_bytes)
}

#[inline(always)]
fn is_udp_to_port(context: &XdpContext, protocol: usize, port: usize) -> bool {
    read(context, protocol) == Some([17]) && read(context, port) == Some(PORT.to_be_bytes())
}

#[inline(always)]
fn read<const N: usize>(context: &XdpContext, offset: usize) -> Option<[u8; N]> {
    let start = context.data() + offset;
    if start + N > context.data_end() {
        return None;
    }
    // SAFETY: the bytes were found to be within the frame.
    Some(unsafe { *(start as *const [u8; N]) })
}
