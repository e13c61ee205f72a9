//! This machine's own traffic: which ISP a socket uses is in its mark.
//!
//! TCP is marked when it connects, as what a listening socket accepts would inherit its mark, though the ISP of such a
//! connection is the one that it came in on. UDP may send without being connected, and a mark that is set while it sends
//! is too late for what it sends: so it is marked when it is made, and marked anew if it connects or sends when the ISP cannot
//! be used any more. Everything else has no mark, and takes the balanced default route.
//!
//! Sockets that are bound to an address or a device have chosen their ISP by that, and those that have a mark of their own by
//! that; they are left alone.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_setsockopt,
};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use balance_common::layout::LAN_SELF;
use balance_common::{Address, Family, Flow, IspId, MarkMask, PolicyId, Sticky};

use crate::classify::Rules;
use crate::maps::{ISPS, LOCAL_MARKS, POLICIES, SETTINGS};
use crate::steer::{is_local, select};

/// The cookie of the network namespace that all of this is about, which the daemon fills in; 0 is that of none.
#[unsafe(no_mangle)]
static NETNS: u64 = 0;

// Of Linux's headers.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_DGRAM: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// A socket that has just been made.
#[inline(always)]
pub(crate) fn create(context: &SockContext) {
    let sock = context.sock;
    // SAFETY: the kernel hands over a valid socket; so in all that follows.
    let (kind, protocol, family) = unsafe { ((*sock).type_, (*sock).protocol, (*sock).family) };
    // What has a mark or a device already, has it from another program.
    // SAFETY: as above.
    let is_taken = unsafe { (*sock).mark != 0 || (*sock).bound_dev_if != 0 };
    if kind != SOCK_DGRAM || protocol != u32::from(UDP) || is_taken || !is_here(context) {
        return;
    }
    // SAFETY: a plain number.
    let chance = u64::from(unsafe { bpf_get_prandom_u32() });
    let draw = |family| select_local(PolicyId::DEFAULT, Flow { family, protocol: UDP, ..UNKNOWN }, chance);
    let isp = match family {
        AF_INET => draw(Family::V4),
        // It can send both.
        AF_INET6 => draw(Family::V6).or_else(|| draw(Family::V4)),
        _ => None,
    };
    let Some(mark) = isp.and_then(mark_of) else { return };
    if LOCAL_MARKS.insert(cookie(context), mark, 0).is_ok() {
        // SAFETY: the kernel lets us write this field, as a whole.
        unsafe { (&raw mut (*sock).mark).write_volatile(mark) };
    }
}

/// A socket that is about to be connected.
#[inline(always)]
pub(crate) fn connect(context: &SockAddrContext, family: Family) {
    let Some(socket) = Socket::of(context) else { return };
    let Some(protocol) = socket.protocol() else { return };
    if socket.has_device() {
        return socket.release();
    }
    // Bound, or it has been connected before and keeps the address of then, which belongs to the mark that it has.
    if socket.has_source(family) {
        return;
    }
    let (family, destination) = target(context, family);
    if is_local(&Flow { destination, ..UNKNOWN }) {
        return socket.release();
    }
    let flow = Flow { family, destination, protocol, destination_port: port(context), ..UNKNOWN };
    let policy = policy_of(&flow);
    // It was drawn by weight when the socket was made. Or the owner of the socket has asked for the very same, of which we
    // know nothing.
    let is_drawn = policy == Some(PolicyId::DEFAULT);
    if is_drawn && socket.isp().is_some_and(|isp| is_usable(isp, family)) {
        return;
    }
    match policy.and_then(|policy| select_local(policy, flow, socket.cookie)) {
        Some(isp) => socket.mark(isp),
        None => socket.release(),
    }
}

/// A socket that is about to be bound.
#[inline(always)]
pub(crate) fn bind(context: &SockAddrContext, family: Family) {
    let (_, address) = target(context, family);
    let is_any = address.octets() == [0; 16] || address == Address::v4([0; 4]);
    if !is_any && let Some(socket) = Socket::of(context) {
        socket.release();
    }
}

/// A socket that is about to send without being connected. What it sends now has its mark already, and if that is of an ISP that
/// cannot be used nft takes care of it; this is for what it will send next.
#[inline(always)]
pub(crate) fn sendmsg(context: &SockAddrContext, family: Family) {
    let Some(socket) = Socket::of(context) else { return };
    let Some(isp) = socket.isp() else { return };
    if is_usable(isp, family) {
        return;
    }
    if socket.has_device() {
        return socket.release();
    }
    let (family, destination) = target(context, family);
    let flow = Flow { family, destination, protocol: UDP, ..UNKNOWN };
    if !is_local(&flow)
        && let Some(isp) = select_local(PolicyId::DEFAULT, flow, socket.cookie)
    {
        socket.mark(isp);
    }
}

/// The policy of a flow that this machine is about to begin; none if it is not to be given an ISP. Its own address is not known yet,
/// so no rule about sources is about it.
#[inline(always)]
fn policy_of(flow: &Flow) -> Option<PolicyId> {
    let Some(rules) = Rules::in_force() else { return Some(PolicyId::DEFAULT) };
    PolicyId::new(rules.policy(flow, LAN_SELF, 0))
}

/// The ISP for a flow that this machine is about to begin. `key` is what sets it apart from others that are the same as far as they are
/// known, since its own port is not.
#[inline(always)]
fn select_local(policy: PolicyId, flow: Flow, key: u64) -> Option<IspId> {
    let entry = POLICIES.get(u32::from(policy.get()))?;
    let flow = match Sticky::from(entry.sticky) {
        Sticky::Flow => {
            let [_, _, _, _, key @ ..] = key.to_be_bytes();
            Flow { source: Address::v4(key), ..flow }
        }
        sticky => sticky.key(flow),
    };
    select(&flow, policy, flow.hash(SETTINGS.get(0)?.seed))
}

/// A flow of which nothing is known.
const UNKNOWN: Flow = Flow {
    family: Family::V4,
    source: Address::v4([0; 4]),
    destination: Address::v4([0; 4]),
    protocol: 0,
    source_port: 0,
    destination_port: 0,
};

/// A socket of ours to decide about: one without a mark, or with one that it has from us.
struct Socket<'a> {
    context: &'a SockAddrContext,
    sock: *mut bpf_sock,
    cookie: u64,
    mark: u32,
}

impl<'a> Socket<'a> {
    #[inline(always)]
    fn of(context: &'a SockAddrContext) -> Option<Self> {
        if !is_here(context) {
            return None;
        }
        let cookie = cookie(context);
        // SAFETY: the kernel hands over a valid context with a valid socket.
        let sock = unsafe { (*context.sock_addr).__bindgen_anon_1.sk };
        // SAFETY: as above.
        let mark = unsafe { (*sock).mark };
        let is_ours = mark == 0 || is_from_us(cookie, mark);
        is_ours.then_some(Self { context, sock, cookie, mark })
    }

    /// The ISP whose mark it has.
    #[inline(always)]
    fn isp(&self) -> Option<IspId> {
        mark_mask()?.isp(self.mark)
    }

    /// Its protocol, if that is one of those that we mark sockets of.
    #[inline(always)]
    fn protocol(&self) -> Option<u8> {
        // SAFETY: as in `of`.
        let number = unsafe { (*self.context.sock_addr).protocol };
        [TCP, UDP].into_iter().find(|&protocol| u32::from(protocol) == number)
    }

    #[inline(always)]
    fn has_device(&self) -> bool {
        // SAFETY: as in `of`.
        unsafe { (*self.sock).bound_dev_if != 0 }
    }

    #[inline(always)]
    fn has_source(&self, family: Family) -> bool {
        // SAFETY: as in `of`. Word by word, as the kernel allows no other way.
        unsafe {
            match family {
                Family::V4 => (*self.sock).src_ip4 != 0,
                Family::V6 => words(&raw const (*self.sock).src_ip6) != [0; 4],
            }
        }
    }

    /// Gives it the mark of this ISP.
    #[inline(always)]
    fn mark(&self, isp: IspId) {
        let Some(mark) = mark_of(isp) else { return };
        if mark != self.mark && LOCAL_MARKS.insert(self.cookie, mark, 0).is_ok() {
            self.set(mark);
        }
    }

    /// Takes our mark away.
    #[inline(always)]
    fn release(&self) {
        if self.mark != 0 {
            self.set(0);
            // It is a matter of room only.
            let _ = LOCAL_MARKS.remove(self.cookie);
        }
    }

    #[inline(always)]
    fn set(&self, mut mark: u32) {
        let value = (&raw mut mark).cast();
        // It can fail only on kernels whose verifier would not have let us in here.
        // SAFETY: the value is four bytes that live as long as the call.
        let _ = unsafe { bpf_setsockopt(self.context.as_ptr(), SOL_SOCKET, SO_MARK, value, 4) };
    }
}

#[inline(always)]
fn is_from_us(cookie: u64, mark: u32) -> bool {
    // SAFETY: a number, which is read at once.
    unsafe { LOCAL_MARKS.get(cookie) }.is_some_and(|&own| own == mark)
}

/// Whether this happens in the daemon's network namespace. All of the machine's sockets come by here.
#[inline(always)]
fn is_here(context: &impl EbpfContext) -> bool {
    // SAFETY: the value is that of the object as the daemon has loaded it, not as it was built.
    let here = unsafe { (&raw const NETNS).read_volatile() };
    // SAFETY: the context is valid.
    here != 0 && here == unsafe { bpf_get_netns_cookie(context.as_ptr()) }
}

#[inline(always)]
fn cookie(context: &impl EbpfContext) -> u64 {
    // SAFETY: the context is valid.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}

/// The mark of an ISP.
#[inline(always)]
fn mark_of(isp: IspId) -> Option<u32> {
    Some(mark_mask()?.value(isp))
}

#[inline(always)]
fn mark_mask() -> Option<MarkMask> {
    MarkMask::new(SETTINGS.get(0)?.mark_mask)
}

#[inline(always)]
fn is_usable(isp: IspId, family: Family) -> bool {
    ISPS.get(u32::from(isp.get())).is_some_and(|entry| match (family, entry.usable) {
        (Family::V4, [usable, _]) | (Family::V6, [_, usable]) => usable != 0,
    })
}

/// The address that is given, and its family: IPv6 sockets give IPv4 addresses as IPv4-mapped ones.
#[inline(always)]
fn target(context: &SockAddrContext, family: Family) -> (Family, Address) {
    let address: *const bpf_sock_addr = context.sock_addr;
    // SAFETY: the kernel hands over a valid context.
    unsafe {
        match family {
            Family::V4 => (Family::V4, Address::v4((*address).user_ip4.to_ne_bytes())),
            Family::V6 => match words(&raw const (*address).user_ip6) {
                [0, 0, MAPPED, last] => (Family::V4, Address::v4(last.to_ne_bytes())),
                [a, b, c, d] => {
                    let word = |word: u32| u128::from(u32::from_be(word));
                    let whole = word(a) << 96 | word(b) << 64 | word(c) << 32 | word(d);
                    (Family::V6, Address::v6(whole.to_be_bytes()))
                }
            },
        }
    }
}

/// The third word of an IPv4-mapped address (RFC 4291, 2.5.5.2).
const MAPPED: u32 = 0xffff_u32.to_be();

#[inline(always)]
fn port(context: &SockAddrContext) -> u16 {
    // SAFETY: as above.
    let [high, low, ..] = unsafe { (*context.sock_addr).user_port }.to_ne_bytes();
    u16::from_be_bytes([high, low])
}

/// Reads an address word by word, as the kernel allows no other way on all versions.
///
/// # Safety
/// The address must be one in a context.
#[inline(always)]
unsafe fn words(address: *const [u32; 4]) -> [u32; 4] {
    let first: *const u32 = address.cast();
    // SAFETY: there are four.
    unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ]
    }
}
