//! What runs in the kernel: entry points only.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod classify;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod fast;
#[cfg(target_arch = "bpf")]
mod ingress;
#[cfg(target_arch = "bpf")]
mod learn;
#[cfg(target_arch = "bpf")]
mod local;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod steer;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands the context over by value")]
mod entry {
    use aya_ebpf::bindings::TC_ACT_REDIRECT;
    use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
    use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp};
    use aya_ebpf::programs::{SockAddrContext, SockContext, TcContext, XdpContext};
    use balance_common::Family;

    use crate::skb::{ETHERNET, IP};
    use crate::{ingress, learn, local, xdp};

    /// Lets the programs after ours run, in tcx (`TCX_NEXT`) as in clsact (`TC_ACT_UNSPEC`). We never drop, and end the
    /// chain only for what we forward.
    const NEXT: i32 = -1;

    /// Packets from a LAN: forwards or steers.
    #[classifier]
    pub(crate) fn lan_ingress(context: TcContext) -> i32 {
        verdict(ingress::from_lan::<ETHERNET>(&context))
    }

    /// The same where packets begin with IP.
    #[classifier]
    pub(crate) fn lan_ingress_ip(context: TcContext) -> i32 {
        verdict(ingress::from_lan::<IP>(&context))
    }

    /// Packets from an ISP: forwards or counts.
    #[classifier]
    pub(crate) fn isp_ingress(context: TcContext) -> i32 {
        verdict(ingress::from_isp::<ETHERNET>(&context))
    }

    /// The same where packets begin with IP.
    #[classifier]
    pub(crate) fn isp_ingress_ip(context: TcContext) -> i32 {
        verdict(ingress::from_isp::<IP>(&context))
    }

    /// Packets to a LAN or an ISP: counts, and learns.
    #[classifier]
    pub(crate) fn egress(context: TcContext) -> i32 {
        learn::egress::<ETHERNET>(&context);
        NEXT
    }

    /// The same where packets begin with IP.
    #[classifier]
    pub(crate) fn egress_ip(context: TcContext) -> i32 {
        learn::egress::<IP>(&context);
        NEXT
    }

    /// Packets from a LAN or an ISP, before the kernel has them: forwards. Of frames in several pieces it only sees the
    /// first, and leaves them to TC; but it need not stand in the way of large MTUs.
    #[xdp(frags)]
    pub(crate) fn fast_xdp(context: XdpContext) -> u32 {
        if xdp::forward(&context) { XDP_REDIRECT } else { XDP_PASS }
    }

    /// What cgroup programs say of what a process wants to do. We never forbid anything.
    const ALLOW: i32 = 1;

    /// A socket of this machine that has just been made: marks it, if it may send without being connected.
    #[cgroup_sock(sock_create)]
    pub(crate) fn local_create(context: SockContext) -> i32 {
        local::create(&context);
        ALLOW
    }

    /// A socket that is about to be connected: marks it.
    #[cgroup_sock_addr(connect4)]
    pub(crate) fn local_connect4(context: SockAddrContext) -> i32 {
        local::connect(&context, Family::V4);
        ALLOW
    }

    /// The same for IPv6.
    #[cgroup_sock_addr(connect6)]
    pub(crate) fn local_connect6(context: SockAddrContext) -> i32 {
        local::connect(&context, Family::V6);
        ALLOW
    }

    /// A socket that is about to be bound: takes our mark away if that is to an address.
    #[cgroup_sock_addr(bind4)]
    pub(crate) fn local_bind4(context: SockAddrContext) -> i32 {
        local::bind(&context, Family::V4);
        ALLOW
    }

    /// The same for IPv6.
    #[cgroup_sock_addr(bind6)]
    pub(crate) fn local_bind6(context: SockAddrContext) -> i32 {
        local::bind(&context, Family::V6);
        ALLOW
    }

    /// A socket that is about to send without being connected: gives it another mark if it cannot keep the one it has.
    #[cgroup_sock_addr(sendmsg4)]
    pub(crate) fn local_sendmsg4(context: SockAddrContext) -> i32 {
        local::sendmsg(&context, Family::V4);
        ALLOW
    }

    /// The same for IPv6.
    #[cgroup_sock_addr(sendmsg6)]
    pub(crate) fn local_sendmsg6(context: SockAddrContext) -> i32 {
        local::sendmsg(&context, Family::V6);
        ALLOW
    }

    #[inline(always)]
    const fn verdict(forwarded: bool) -> i32 {
        if forwarded { TC_ACT_REDIRECT } else { NEXT }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Never reached: no path in here can panic, or the verifier would refuse this endless loop.
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// On the host there is nothing to run: `cargo xtask build-ebpf` builds this crate for the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
