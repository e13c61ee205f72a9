//! Loading the programs and attaching them to devices.

use std::collections::BTreeSet;
use std::fs;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use aya::{Ebpf, EbpfLoader};

use super::{DatapathError, Maps, OBJECT, Pins, io_error};
use crate::config::Attach;
use crate::core::plan::{Attachment, Role};

/// Where our filters stand in a clsact chain: early, since a program before us may end the chain.
const CLSACT_PRIORITY: u16 = 2;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xba1);

/// The loaded programs of an instance.
pub struct Datapath {
    pins: Pins,
    programs: Ebpf,
    tcx: bool,
    attached: BTreeSet<Attachment>,
}

#[derive(Clone, Copy)]
struct Hook {
    program: &'static str,
    direction: TcAttachType,
}

const LAN_INGRESS: Hook = Hook { program: "lan_ingress", direction: TcAttachType::Ingress };
const ISP_INGRESS: Hook = Hook { program: "isp_ingress", direction: TcAttachType::Ingress };
const ISP_EGRESS: Hook = Hook { program: "isp_egress", direction: TcAttachType::Egress };
const HOOKS: [Hook; 3] = [LAN_INGRESS, ISP_INGRESS, ISP_EGRESS];

impl Role {
    const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Lan => &[LAN_INGRESS],
            Self::Isp => &[ISP_INGRESS, ISP_EGRESS],
        }
    }
}

impl Datapath {
    /// Loads the programs, with the instance's pinned maps where there are some, and has links that an earlier
    /// daemon left behind run these programs from now on. No packet goes by without a program.
    pub fn load(pins: Pins, attach: Attach) -> Result<Self, DatapathError> {
        pins.prepare()?;
        let mut programs =
            EbpfLoader::new().default_map_pin_directory(pins.folder()).load(OBJECT).map_err(Box::new)?;
        for hook in HOOKS {
            let classifier = classifier(&mut programs, hook.program)?;
            classifier.load().map_err(program_error(hook.program))?;
        }
        let tcx = match attach {
            Attach::Tcx => true,
            Attach::Clsact => false,
            Attach::Auto => kernel_has_tcx(),
        };
        Ok(Self { pins, programs, tcx, attached: BTreeSet::new() })
    }

    /// The maps.
    pub fn maps(&self) -> Result<Maps, DatapathError> {
        Maps::open(&self.pins)
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
        for attachment in missing {
            let failed = attachment.role.hooks().iter().find_map(|&hook| self.attach_hook(&attachment, hook).err());
            match failed {
                Some(error) => errors.push(error),
                None => drop(self.attached.insert(attachment)),
            }
        }
        for stale in self.attached.difference(wanted).cloned().collect::<Vec<_>>() {
            for hook in stale.role.hooks() {
                detach_clsact(&stale.device, *hook);
            }
            self.attached.remove(&stale);
        }
        errors.extend(self.remove_stale_links(wanted).err());
        errors
    }

    fn attach_hook(&mut self, to: &Attachment, hook: Hook) -> Result<(), DatapathError> {
        let pin = self.pins.link(hook.program, to.index);
        let classifier = classifier(&mut self.programs, hook.program)?;
        let result = if self.tcx {
            detach_clsact(&to.device, hook);
            attach_tcx(classifier, to, hook, &pin)
        } else {
            // A link of the other kind would have the packets pass the program twice.
            let _ = fs::remove_file(&pin);
            attach_clsact(classifier, to, hook)
        };
        result.map_err(|source| DatapathError::Attach {
            program: hook.program,
            device: to.device.clone(),
            source: Box::new(source),
        })
    }

    /// Links of devices that are gone or no longer ours; removing the pin detaches.
    fn remove_stale_links(&self, wanted: &BTreeSet<Attachment>) -> Result<(), DatapathError> {
        let keep: BTreeSet<_> = wanted
            .iter()
            .flat_map(|to| to.role.hooks().iter().map(|hook| self.pins.link(hook.program, to.index)))
            .collect();
        let links = self.pins.links();
        for entry in fs::read_dir(&links).map_err(io_error(links))?.flatten() {
            let path = entry.path();
            if !keep.contains(&path) {
                fs::remove_file(&path).map_err(io_error(path))?;
            }
        }
        Ok(())
    }
}

/// Removes our filters from the clsact chain of a device, if there are any.
pub(crate) fn detach_all_clsact(device: &str) {
    for hook in HOOKS {
        detach_clsact(device, hook);
    }
}

fn detach_clsact(device: &str, hook: Hook) {
    if let Ok(link) =
        SchedClassifierLink::attached(device, hook.direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
    {
        // There being none is the usual case.
        let _ = aya::programs::Link::detach(link);
    }
}

fn attach_tcx(
    classifier: &mut SchedClassifier,
    to: &Attachment,
    hook: Hook,
    pin: &std::path::Path,
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
fn adopt(classifier: &mut SchedClassifier, pin: &std::path::Path) -> Result<bool, ProgramError> {
    if !pin.exists() {
        return Ok(false);
    }
    let pinned = PinnedLink::from_pin(pin).map_err(link_error)?;
    let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(link_error)?;
    let id = classifier.attach_to_link(link)?;
    classifier.take_link(id).map(|_| true)
}

fn attach_clsact(classifier: &mut SchedClassifier, to: &Attachment, hook: Hook) -> Result<(), ProgramError> {
    // Failing because it is there already is the usual case; if it failed otherwise, so does attaching.
    let _ = tc::qdisc_add_clsact(&to.device);
    let old =
        SchedClassifierLink::attached(&to.device, hook.direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
            .map_err(ProgramError::IOError)?;
    let id = match classifier.attach_to_link(old) {
        Ok(id) => id,
        Err(_) => classifier.attach_with_options(
            &to.device,
            hook.direction,
            TcAttachOptions::Netlink(NlOptions {
                priority: CLSACT_PRIORITY,
                handle: CLSACT_HANDLE,
                classid: None,
            }),
        )?,
    };
    // Dropping the link would detach the filter, which must outlive us.
    std::mem::forget(classifier.take_link(id)?);
    Ok(())
}

fn classifier<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let program = programs.program_mut(name).ok_or(DatapathError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

fn program_error(program: &'static str) -> impl FnOnce(ProgramError) -> DatapathError {
    move |source| DatapathError::Program { program, source: Box::new(source) }
}

fn link_error(error: LinkError) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(error))
}

/// tcx came with Linux 6.6; asking for the programs of the loopback device tells whether it is there.
fn kernel_has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}
