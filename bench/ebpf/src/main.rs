//! The benchmark's programs: what makes packets, and what counts them where they arrive.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands the context over by value")]
mod entry {
    use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};

    use crate::{frame, maps};

    /// Never attached: the kernel runs it over empty frames, so often as is asked for.
    #[xdp]
    pub(crate) fn inject(context: XdpContext) -> u32 {
        frame::make(&context).unwrap_or(xdp_action::XDP_ABORTED)
    }

    /// Takes everything as it is. A veth device takes redirected or injected frames only where a program is.
    #[xdp]
    pub(crate) fn pass(_: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Counts the benchmark's packets and drops them; takes everything else.
    #[xdp]
    pub(crate) fn count(context: XdpContext) -> u32 {
        if frame::is_ours(&context) {
            maps::count_arrived();
            xdp_action::XDP_DROP
        } else {
            xdp_action::XDP_PASS
        }
    }

    /// Counts and drops all packets that enter the stack.
    #[classifier]
    pub(crate) fn stop(_: TcContext) -> i32 {
        maps::count_arrived();
        TC_ACT_SHOT
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
