//! The eBPF side of the daemon: loading and pinning, attaching to devices, and the maps.

mod attach;
mod batch;
mod cgroup;
mod clsact;
mod maps;
mod pins;
mod rehearsal;
mod shape;
mod xdp;

pub use attach::Datapath;
pub use cgroup::{CgroupError, cgroup2_mount, marks_local_sockets};
pub use clsact::detach;
pub(crate) use clsact::is_our_filter;
pub use maps::{FlowCache, Incoming, Maps, Ruler, Stretch};
pub use pins::{Pins, instances};
pub use rehearsal::{Rehearsed, rehearse};
pub use xdp::XdpLinks;

use std::path::PathBuf;

/// The eBPF object, as `cargo xtask build-ebpf` built it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../balance-ebpf/prebuilt/balance.bpf.o"
));

/// What can go wrong with the datapath.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The BPF file system could not be mounted.
    #[error(
        "cannot mount the BPF file system on {path}: {source}; is the kernel built with CONFIG_BPF_SYSCALL?"
    )]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder of the BPF file system.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The object could not be loaded: no right to, or a kernel that refuses it.
    #[error("cannot load the eBPF programs: {0}; this needs root and Linux 5.11 or later")]
    Load(#[from] Box<aya::EbpfError>),
    /// The object is not what this program was built for.
    #[error("the eBPF object has no {0}; it was not built from these sources")]
    Missing(&'static str),
    /// A map.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The map of the devices to which XDP may send packets.
    #[error("eBPF map XDP_TARGETS: {0}")]
    XdpTargets(#[from] aya::maps::xdp::XdpMapError),
    /// A program.
    #[error("cannot attach {program} to {device}: {source}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// The device's name.
        device: String,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
    /// A device that has an XDP program already; it can have one.
    #[error("{0} has an XDP program of somebody else")]
    Occupied(String),
    /// A clsact qdisc of ours could not be removed.
    #[error("cannot remove the clsact qdisc of {device}: {source}")]
    Qdisc {
        /// The device's name.
        device: String,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
    /// A program that the kernel does not accept.
    #[error("the kernel refuses the eBPF program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
}

pub(crate) fn io_error(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> DatapathError {
    let path = path.into();
    |source| DatapathError::Io { path, source }
}
