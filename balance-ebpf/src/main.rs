//! What runs in the kernel: entry points only.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod steer;

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands the context over by value")]
mod entry {
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;

    use crate::{count, steer};

    /// Lets the programs after ours run, in tcx (`TCX_NEXT`) as in clsact (`TC_ACT_UNSPEC`). We never end the
    /// chain and never drop.
    const NEXT: i32 = -1;

    /// Packets from a LAN: steers.
    #[classifier]
    pub(crate) fn lan_ingress(context: TcContext) -> i32 {
        steer::steer(&context);
        NEXT
    }

    /// Packets from an ISP: counts.
    #[classifier]
    pub(crate) fn isp_ingress(context: TcContext) -> i32 {
        count::received(&context);
        NEXT
    }

    /// Packets to an ISP: counts.
    #[classifier]
    pub(crate) fn isp_egress(context: TcContext) -> i32 {
        count::sent(&context);
        NEXT
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
