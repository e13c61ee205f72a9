//! The benchmark's programs: what makes packets, and what counts them where they arrive.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands the context over by value")]
mod entry {
    use aya_ebpf::bindings::{TC_ACT_PIPE, TC_ACT_REDIRECT, TC_ACT_SHOT, xdp_action};
    use aya_ebpf::helpers::generated::bpf_redirect;
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};

    use balance_bench_ebpf::TARGETS;

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

    /// Hands the benchmark's packets that enter the stack to the targets in turn, as they are.
    #[classifier]
    pub(crate) fn spread(context: TcContext) -> i32 {
        let source_port = context.load::<u16>(frame::SOURCE_PORT_V4).map(u16::from_be);
        match source_port.ok().and_then(|port| maps::TARGETS.get(u32::from(port) & (TARGETS - 1))) {
            Some(&device) if device != 0 => {
                // SAFETY: a helper that takes two numbers. It only says what to return.
                unsafe { bpf_redirect(device, 0) };
                TC_ACT_REDIRECT
            }
            _ => TC_ACT_PIPE,
        }
    }

    /// The same for frames that XDP sees.
    #[xdp]
    pub(crate) fn spread_xdp(context: XdpContext) -> u32 {
        match frame::source_port_v4(&context) {
            Some(port) if frame::is_ours(&context) => {
                maps::XDP_TARGETS.redirect(u32::from(port) & (TARGETS - 1), 0).unwrap_or(xdp_action::XDP_PASS)
            }
            _ => xdp_action::XDP_PASS,
        }
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
