//! Loading the programs and attaching them to devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp};
use aya::{Ebpf, EbpfLoader};
use balance_common::fast::Dimensions;

use super::clsact::Clsact;
use super::{CgroupError, DatapathError, Maps, OBJECT, Pins, XdpLinks, cgroup, io_error, xdp};
use crate::config::Attach;
use crate::core::plan::{Attachment, Role};

/// The loaded programs of an instance.
pub struct Datapath {
    pins: Pins,
    programs: Ebpf,
    tcx: bool,
    clsact: Clsact,
    attached: BTreeSet<Attachment>,
    /// Whether this machine's own sockets are marked; none if nobody has asked for either yet.
    local: Option<bool>,
    /// Devices, by index, to which an earlier daemon may have attached programs.
    left: BTreeSet<u32>,
}

/// A program and where on a device it runs.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    pub(super) program: &'static str,
    pub(super) direction: TcAttachType,
}

const LAN_INGRESS: Hook = Hook { program: "lan_ingress", direction: TcAttachType::Ingress };
const LAN_INGRESS_IP: Hook = Hook { program: "lan_ingress_ip", direction: TcAttachType::Ingress };
const ISP_INGRESS: Hook = Hook { program: "isp_ingress", direction: TcAttachType::Ingress };
const ISP_INGRESS_IP: Hook = Hook { program: "isp_ingress_ip", direction: TcAttachType::Ingress };
const EGRESS: Hook = Hook { program: "egress", direction: TcAttachType::Egress };
const EGRESS_IP: Hook = Hook { program: "egress_ip", direction: TcAttachType::Egress };
pub(super) const HOOKS: [Hook; 6] =
    [LAN_INGRESS, LAN_INGRESS_IP, ISP_INGRESS, ISP_INGRESS_IP, EGRESS, EGRESS_IP];

/// The sizes of the flow caches that have room for as many flows as the config says: an entry for each direction.
fn flow_caches(flows: u32) -> Dimensions {
    Dimensions::for_entries(flows.saturating_mul(2), 0)
}

/// The sizes of the maps that come from the config, by name. Of `SEEN` there is twice as much as there is to be room for, since an LRU
/// evicts before it is full.
fn map_sizes(flows: u32) -> [(&'static str, u32); 5] {
    let Dimensions { rows, slots, .. } = flow_caches(flows);
    let seen = flows.saturating_mul(4).checked_next_power_of_two().unwrap_or(1 << 31);
    [("SEEN", seen), ("INDEX_V4", rows), ("INDEX_V6", rows), ("FLOWS_V4", slots), ("FLOWS_V6", slots)]
}

impl Attachment {
    const fn hooks(&self) -> [Hook; 2] {
        match (self.role, self.ethernet) {
            (Role::Lan, true) => [LAN_INGRESS, EGRESS],
            (Role::Lan, false) => [LAN_INGRESS_IP, EGRESS_IP],
            (Role::Isp, true) => [ISP_INGRESS, EGRESS],
            (Role::Isp, false) => [ISP_INGRESS_IP, EGRESS_IP],
        }
    }
}

impl Datapath {
    /// Loads the programs, with the instance's pinned maps where there are some. Attaching them will have links and
    /// filters that an earlier daemon left behind run these programs from then on; no packet goes by without one.
    /// `clsact` is the file that remembers which devices had no clsact qdisc before us; `flows` is the number of flows
    /// of each family that the fast path shall have room for.
    pub fn load(pins: Pins, attach: Attach, clsact: PathBuf, flows: u32) -> Result<Self, DatapathError> {
        let (sizes, caches) = (map_sizes(flows), flow_caches(flows));
        pins.prepare(&sizes)?;
        let mut loader = EbpfLoader::new();
        for (name, entries) in sizes {
            loader.map_max_entries(name, entries);
        }
        loader.override_global("FLOW_ROWS", &caches.rows, true);
        loader.override_global("FLOW_SLOTS", &caches.slots, true);
        // 0 is no namespace: then those programs do nothing, and are not attached.
        let namespace = cgroup::network_namespace().unwrap_or(0);
        loader.override_global("NETNS", &namespace, true);
        let mut programs = loader.default_map_pin_directory(pins.folder()).load(OBJECT).map_err(Box::new)?;
        // The verifier takes a good part of a start, so those for devices that few have are loaded when there is one.
        for hook in [LAN_INGRESS, ISP_INGRESS, EGRESS] {
            load(&mut programs, hook)?;
        }
        let tcx = match attach {
            Attach::Tcx => true,
            Attach::Clsact => false,
            Attach::Auto => kernel_has_tcx(),
        };
        let left = Maps::open(&pins)?.devices();
        Ok(Self {
            pins,
            programs,
            tcx,
            clsact: Clsact::new(clsact),
            attached: BTreeSet::new(),
            local: None,
            left,
        })
    }

    /// The maps.
    pub fn maps(&self) -> Result<Maps, DatapathError> {
        Maps::open(&self.pins)
    }

    /// Where maps and links are pinned.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Has these devices, by index, run the XDP program in their drivers, and no others. What has failed, by index.
    pub fn attach_xdp(
        &mut self,
        links: &mut XdpLinks,
        wanted: &BTreeMap<u32, String>,
    ) -> Result<BTreeMap<u32, DatapathError>, DatapathError> {
        links.detach_others(&self.pins, wanted)?;
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let program = self.programs.program_mut(xdp::PROGRAM).ok_or(DatapathError::Missing(xdp::PROGRAM))?;
        let program: &mut Xdp = program.try_into().map_err(program_error(xdp::PROGRAM))?;
        if program.fd().is_err() {
            program.load().map_err(program_error(xdp::PROGRAM))?;
        }
        Ok(links.attach(program, &self.pins, wanted))
    }

    /// Has the sockets of this machine marked, or not. What has failed leaves them unmarked, and is tried again with the next
    /// call.
    pub fn mark_local_sockets(&mut self, wanted: bool) -> Result<(), CgroupError> {
        if self.local == Some(wanted) {
            return Ok(());
        }
        self.local = None;
        if wanted {
            cgroup::attach(&mut self.programs, &self.pins)?;
        } else {
            cgroup::detach(&self.pins)?;
        }
        self.local = Some(wanted);
        Ok(())
    }

    /// How programs are attached: `tcx` or `clsact`.
    #[must_use]
    pub const fn attach_kind(&self) -> &'static str {
        if self.tcx { "tcx" } else { "clsact" }
    }

    /// Attaches the programs to these devices and to no others. What fails is tried again with the next call.
    pub fn attach(&mut self, wanted: &BTreeSet<Attachment>) -> Vec<DatapathError> {
        let mut errors = Vec::new();
        let missing: Vec<Attachment> = wanted.difference(&self.attached).cloned().collect();
        // First of all, so that devices run programs of an earlier daemon beside ours for as short as possible.
        let needed = missing.iter().flat_map(Attachment::hooks);
        errors.extend(needed.filter_map(|hook| load(&mut self.programs, hook).err()));
        for attachment in missing {
            let failed =
                attachment.hooks().into_iter().find_map(|hook| self.attach_hook(&attachment, hook).err());
            match failed {
                Some(error) => errors.push(error),
                None => drop(self.attached.insert(attachment)),
            }
        }
        for stale in self.attached.difference(wanted).cloned().collect::<Vec<_>>() {
            Clsact::detach(&stale.device, &stale.hooks());
            self.attached.remove(&stale);
        }
        for index in std::mem::take(&mut self.left) {
            if wanted.iter().all(|attachment| attachment.index != index) {
                Clsact::detach_index(index);
            }
        }
        errors.extend(self.remove_stale_links(wanted).err());
        errors
    }

    fn attach_hook(&mut self, to: &Attachment, hook: Hook) -> Result<(), DatapathError> {
        let pin = self.pins.link(hook.program, to.index);
        let classifier = classifier(&mut self.programs, hook.program)?;
        let result = if self.tcx {
            Clsact::detach(&to.device, &[hook]);
            attach_tcx(classifier, to, hook, &pin)
        } else {
            // A link of the other kind would have the packets pass the program twice.
            let _ = fs::remove_file(&pin);
            self.clsact.attach(classifier, &to.device, hook)
        };
        result.map_err(|source| DatapathError::Attach {
            program: hook.program,
            device: to.device.clone(),
            source: Box::new(source),
        })
    }

    /// Links of devices that are gone or no longer ours, but for those of XDP and of cgroups, which are not made here;
    /// removing the pin detaches.
    fn remove_stale_links(&self, wanted: &BTreeSet<Attachment>) -> Result<(), DatapathError> {
        let keep: BTreeSet<_> = wanted
            .iter()
            .flat_map(|to| to.hooks().map(|hook| self.pins.link(hook.program, to.index)))
            .collect();
        let links = self.pins.links();
        for entry in fs::read_dir(&links).map_err(io_error(links))?.flatten() {
            let path = entry.path();
            if !keep.contains(&path) && !xdp::is_xdp(&path) && !cgroup::is_cgroup(&path) {
                fs::remove_file(&path).map_err(io_error(path))?;
            }
        }
        Ok(())
    }
}

fn attach_tcx(
    classifier: &mut SchedClassifier,
    to: &Attachment,
    hook: Hook,
    pin: &Path,
) -> Result<(), ProgramError> {
    match adopt(classifier, pin) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // The device of that link is gone (ENOLINK), or it is not a link at all.
        Err(_) => drop(fs::remove_file(pin)),
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier.attach_with_options(&to.device, hook.direction, options)?;
    let link: FdLink = classifier.take_link(id)?.try_into().map_err(link_error)?;
    link.pin(pin).map(drop).map_err(|error| ProgramError::IOError(std::io::Error::other(error)))
}

/// Has the pinned link run this program; false if there is no such pin.
fn adopt(classifier: &mut SchedClassifier, pin: &Path) -> Result<bool, ProgramError> {
    if !pin.exists() {
        return Ok(false);
    }
    let pinned = PinnedLink::from_pin(pin).map_err(link_error)?;
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(link_error)?;
    let id = classifier.attach_to_link(link)?;
    classifier.take_link(id).map(|_| true)
}

/// Has the kernel take the program, unless it has.
fn load(programs: &mut Ebpf, hook: Hook) -> Result<(), DatapathError> {
    let classifier = classifier(programs, hook.program)?;
    if classifier.fd().is_err() {
        classifier.load().map_err(program_error(hook.program))?;
    }
    Ok(())
}

pub(super) fn classifier<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let program = programs.program_mut(name).ok_or(DatapathError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

pub(super) fn program_error(program: &'static str) -> impl FnOnce(ProgramError) -> DatapathError {
    move |source| DatapathError::Program { program, source: Box::new(source) }
}

pub(super) fn link_error(error: LinkError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

/// tcx came with Linux 6.6; asking for the programs of the loopback device tells whether it is there.
fn kernel_has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}
