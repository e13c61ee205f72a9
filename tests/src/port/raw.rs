//! What sockets of packets need and no crate has.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use socket2::Socket;

use crate::packet::Mac;

/// The longest packet that the kernel hands over, and its headers.
const LONGEST: usize = (1 << 16) + 256;

/// Type and content of a VLAN tag that the kernel has taken out of a frame.
pub(super) type Tag = (u16, u16);

/// Switches an option of `linux/if_packet.h` on.
pub(super) fn enable(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, option, 1)
}

/// Sets the receive buffer's size, past the limit for everybody.
pub(super) fn force_receive_buffer(socket: &Socket, size: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(size).map_err(io::Error::other)?;
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size)
}

fn set(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is as long as said, and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the socket receive all packets of a device.
pub(super) fn bind(socket: &Socket, index: u32) -> io::Result<()> {
    // SAFETY: all of it are numbers, for which zero is fine.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address is as long as said, and outlives the call.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address of the device that the socket is bound to.
pub(super) fn mac(socket: &Socket) -> io::Result<Mac> {
    // SAFETY: as in `bind`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut length = length_of::<libc::sockaddr_ll>();
    // SAFETY: there is room for as much as said, and both outlive the call.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    address.sll_addr.first_chunk().map(|mac| Mac(*mac)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// One packet, and its VLAN tag if it came with one.
pub(super) fn receive(socket: &Socket) -> io::Result<(Vec<u8>, Option<Tag>)> {
    let mut bytes = vec![0_u8; LONGEST];
    // Aligned as control messages are.
    let mut control = [0_u64; 16];
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of it are numbers and pointers that may be null.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message points to buffers that are as long as said and outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    if length > bytes.len() {
        return Err(io::Error::other("a packet of impossible length"));
    }
    bytes.truncate(length);
    Ok((bytes, tag(&message)))
}

fn tag(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the kernel has filled the message in, and its buffers are still there.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !control.is_null() {
        // SAFETY: the kernel wrote this control message, with what belongs to it following.
        let (header, data) = unsafe { (*control, libc::CMSG_DATA(control)) };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: this is what follows in a message of this type.
            let data: libc::tpacket_auxdata =
                unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
            return (data.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .then_some((data.tp_vlan_tpid, data.tp_vlan_tci));
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    None
}

/// The length of a C structure, as the kernel's calls take it.
fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}
