//! XDP programs: attached natively, in the driver, by links that outlive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya::sys::SyscallError;

use super::attach::link_error;
use super::{DatapathError, Pins, io_error};

/// The program.
pub(super) const PROGRAM: &str = "fast_xdp";

/// Where the XDP program runs.
#[derive(Debug, Default)]
pub struct XdpLinks {
    /// The devices, by index.
    attached: BTreeSet<u32>,
}

impl XdpLinks {
    /// Has the devices, by index, run this program in their drivers, and no other devices: those where an earlier daemon
    /// has attached its program run this one from then on, no packet goes by without one. A program of somebody else is
    /// left alone. What has failed, by index, is tried again with the next call.
    pub fn attach(
        &mut self,
        program: &mut Xdp,
        pins: &Pins,
        wanted: &BTreeMap<u32, String>,
    ) -> BTreeMap<u32, DatapathError> {
        let mut errors = BTreeMap::new();
        self.attached.retain(|index| wanted.contains_key(index));
        for (&index, device) in wanted {
            if self.attached.contains(&index) {
                continue;
            }
            match attach(program, index, &pins.link(PROGRAM, index)) {
                Ok(()) => drop(self.attached.insert(index)),
                Err(error) => drop(errors.insert(index, why(device, error))),
            }
        }
        errors
    }

    /// Detaches what earlier calls or daemons have attached to devices other than these, by index. Needs no program.
    pub fn detach_others(
        &mut self,
        pins: &Pins,
        wanted: &BTreeMap<u32, String>,
    ) -> Result<(), DatapathError> {
        self.attached.retain(|index| wanted.contains_key(index));
        let keep: BTreeSet<_> = wanted.keys().map(|&index| pins.link(PROGRAM, index)).collect();
        let links = pins.links();
        for entry in fs::read_dir(&links).map_err(io_error(links))?.flatten() {
            let path = entry.path();
            if is_xdp(&path) && !keep.contains(&path) {
                fs::remove_file(&path).map_err(io_error(path))?;
            }
        }
        Ok(())
    }
}

/// Whether this pin is that of an XDP link.
pub(super) fn is_xdp(pin: &Path) -> bool {
    let name = pin.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(PROGRAM)).is_some_and(|rest| rest.starts_with('-'))
}

fn attach(program: &mut Xdp, index: u32, pin: &Path) -> Result<(), ProgramError> {
    match adopt(program, pin) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // The device of that link is gone (ENOLINK), or it is not a link at all.
        Err(_) => drop(fs::remove_file(pin)),
    }
    let id = program.attach_to_if_index(index, XdpMode::Driver)?;
    let link: FdLink = program.take_link(id)?.try_into().map_err(link_error)?;
    link.pin(pin).map(drop).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// Has the pinned link run this program; false if there is no such pin.
fn adopt(program: &mut Xdp, pin: &Path) -> Result<bool, ProgramError> {
    if !pin.exists() {
        return Ok(false);
    }
    let pinned = PinnedLink::from_pin(pin).map_err(link_error)?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(link_error)?;
    let id = program.attach_to_link(link)?;
    program.take_link(id).map(|_| true)
}

fn why(device: &str, error: ProgramError) -> DatapathError {
    let errno = match &error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        _ => None,
    };
    match errno {
        // The latter is the answer where the other program runs behind the driver.
        Some(libc::EBUSY | libc::EEXIST) => DatapathError::Occupied(device.to_owned()),
        _ => DatapathError::Attach { program: PROGRAM, device: device.to_owned(), source: Box::new(error) },
    }
}
