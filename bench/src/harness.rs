//! Packets that cost nothing to send and nothing to receive.

use std::time::Duration;

use anyhow::{Context, ensure};
use aya::maps::{Array, DevMap, PerCpuArray};
use aya::programs::{
    SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, Pod};
use balance_bench_ebpf::{Injection, TARGETS};
use balance_lab::{Family, Host, Lab, wait_until};

use crate::core::Core;
use crate::frames::{Frames, Link};

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/prebuilt/traffic.bpf.o"));

/// Frames that the kernel makes in one go.
const BATCH: u32 = 64;
/// How long packets may take to arrive that have been sent.
const ARRIVAL: Duration = Duration::from_millis(100);
/// XDP verdicts of `linux/bpf.h`.
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// Where packets start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// They enter the router's stack on its LAN device.
    Stack,
    /// They come out of the LAN host's end of that device, so that an XDP program on it sees them.
    Wire,
}

/// Where packets end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// At once, where eBPF first sees them in the stack.
    LanIngress,
    /// At once, where XDP first sees them.
    LanXdp,
    /// At the ISPs.
    Isps,
    /// At the ISPs, whose devices are handed them in turn where eBPF first sees them, as they are.
    Devices,
}

/// What came of some packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The time of the core for one packet that was sent, in nanoseconds.
    pub nanoseconds: f64,
    /// How many were sent.
    pub sent: u64,
    /// How many arrived.
    pub arrived: u64,
}

/// The programs that make packets and count them, attached to a lab.
pub struct Harness {
    programs: Ebpf,
    entrance: Entrance,
    link: Link,
    /// The device where packets start.
    device: u32,
    core: Core,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodInjection(Injection);

// SAFETY: words only, without padding; every bit pattern is valid.
unsafe impl Pod for PodInjection {}

impl Harness {
    /// Loads the programs and attaches them to the devices of a lab.
    ///
    /// # Errors
    /// Without root, on a kernel that does not run XDP programs over frames that it makes (Linux 5.18), or when there is
    /// a program already.
    pub fn attach(lab: &Lab, core: Core, entrance: Entrance, exit: Exit) -> anyhow::Result<Self> {
        let mut programs = Ebpf::load(OBJECT).context("the kernel refuses the benchmark's maps")?;
        for name in ["inject", "pass", "count", "spread_xdp"] {
            let program = xdp(&mut programs, name)?;
            program.load().with_context(|| format!("the kernel refuses the program {name}"))?;
        }
        match exit {
            Exit::LanIngress => attach_classifier(&mut programs, "stop", lab.router(), "lan0")?,
            Exit::LanXdp => attach_xdp(&mut programs, "count", lab.router(), "lan0")?,
            Exit::Isps => {}
            Exit::Devices => {
                target(&mut programs, lab)?;
                match entrance {
                    Entrance::Stack => attach_classifier(&mut programs, "spread", lab.router(), "lan0")?,
                    Entrance::Wire => attach_xdp(&mut programs, "spread_xdp", lab.router(), "lan0")?,
                }
            }
        }
        if matches!(exit, Exit::Isps | Exit::Devices) {
            for isp in lab.isps() {
                attach_xdp(&mut programs, "count", isp.host(), "router")?;
            }
        }
        let (start, device) = match entrance {
            Entrance::Stack => (lab.router(), "lan0"),
            Entrance::Wire => (lab.lan(), "eth0"),
        };
        // The kernel makes frames only for a device that has an XDP program.
        attach_xdp(&mut programs, "pass", start, device)?;
        let link = Link {
            source: link_address(lab.lan(), "eth0")?,
            destination: link_address(lab.router(), "lan0")?,
        };
        let device = start.run(|| nix::net::if_::if_nametoindex(device))?;
        Ok(Self { programs, entrance, link, device, core })
    }

    /// Chooses what packets are sent: frames of this length in bytes, of so many flows that take turns.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn prepare(&mut self, family: Family, length: usize, flows: u32) -> anyhow::Result<Load> {
        let verdict = match self.entrance {
            Entrance::Stack => XDP_PASS,
            Entrance::Wire => XDP_TX,
        };
        let frames = Frames::new(self.link, family, length, flows, verdict);
        let map = self.programs.map_mut("INJECTION").context("no map INJECTION")?;
        Array::<_, PodInjection>::try_from(map)?.set(0, PodInjection(frames.injection), 0)?;
        Ok(Load { length: frames.length })
    }

    /// Sends so many packets of those that were prepared, and measures them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send(&mut self, lab: &Lab, load: Load, packets: u32) -> anyhow::Result<Sample> {
        let before = self.arrived()?;
        let host = match self.entrance {
            Entrance::Stack => lab.router(),
            Entrance::Wire => lab.lan(),
        };
        let (program, core, device) = (xdp(&mut self.programs, "inject")?, &self.core, self.device);
        let frame = vec![0; load.length];
        let context = context(u32::try_from(load.length)?, device);
        let (_, time) = host.run(|| {
            core.time(|| {
                let options = TestRunOptions {
                    data_in: Some(&frame),
                    ctx_in: Some(context.as_flattened()),
                    repeat: packets,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                };
                program.test_run(options).context("the kernel does not make frames")
            })
        })?;
        let sent = u64::from(packets);
        let mut arrived = 0;
        // That some do not arrive is something to report.
        let _ = wait_until(ARRIVAL, "the last packets", || {
            arrived = self.arrived().unwrap_or(before) - before;
            arrived >= sent
        });
        Ok(Sample { nanoseconds: time.as_nanos() as f64 / f64::from(packets), sent, arrived })
    }

    fn arrived(&self) -> anyhow::Result<u64> {
        let map = self.programs.map("ARRIVED").context("no map ARRIVED")?;
        Ok(PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?.iter().sum())
    }
}

/// Packets that are ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    length: usize,
}

/// `struct xdp_md` of `linux/bpf.h` for frames of this length that come in by this device.
fn context(length: u32, device: u32) -> [[u8; 4]; 6] {
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    [0, length, 0, device, 0, 0].map(u32::to_ne_bytes)
}

fn xdp<'a>(programs: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = programs.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn attach_xdp(programs: &mut Ebpf, name: &str, host: &Host, device: &str) -> anyhow::Result<()> {
    let program = xdp(programs, name)?;
    host.run(|| program.attach(device, XdpMode::Driver))
        .with_context(|| format!("cannot attach {name} to {device} of {}", host.name()))?;
    Ok(())
}

fn attach_classifier(programs: &mut Ebpf, name: &str, host: &Host, device: &str) -> anyhow::Result<()> {
    let program = programs.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load().with_context(|| format!("the kernel refuses the program {name}"))?;
    host.run(|| program.attach(device, TcAttachType::Ingress))?;
    Ok(())
}

/// Writes the ISPs' devices into the maps of targets, over and over until these are full.
fn target(programs: &mut Ebpf, lab: &Lab) -> anyhow::Result<()> {
    let index = |name: &str| lab.router().run(|| nix::net::if_::if_nametoindex(name));
    let devices = lab.isps().iter().map(|isp| index(&isp.device())).collect::<Result<Vec<u32>, _>>()?;
    let each = || (0..TARGETS).zip(devices.iter().copied().cycle());
    let map = programs.map_mut("TARGETS").context("no map TARGETS")?;
    let mut targets = Array::<_, u32>::try_from(map)?;
    each().try_for_each(|(place, device)| targets.set(place, device, 0))?;
    let map = programs.map_mut("XDP_TARGETS").context("no map XDP_TARGETS")?;
    let mut targets = DevMap::try_from(map)?;
    // The devices have to be those of the router's namespace.
    lab.router().run(|| each().try_for_each(|(place, device)| targets.set(place, device, None, 0)))?;
    Ok(())
}

/// A device's link address.
pub(crate) fn link_address(host: &Host, device: &str) -> anyhow::Result<[u8; 6]> {
    let text = host.sh(&format!("ip -o link show dev {device}"))?;
    let address = text.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next());
    let address = address.with_context(|| format!("no link address in {text}"))?;
    let bytes = address.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>();
    let bytes = bytes.with_context(|| format!("{address} is no link address"))?;
    ensure!(bytes.len() == 6, "{address} is no link address");
    Ok(std::array::from_fn(|index| bytes.get(index).copied().unwrap_or_default()))
}
