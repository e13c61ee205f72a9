//! Attaching by clsact, for kernels without tcx: filters in a qdisc, which the device may have already.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{Link, ProgramError, SchedClassifier};
use futures::TryStreamExt;
use netlink_packet_route::tc::TcHandle;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::attach::{HOOKS, Hook};
use super::{DatapathError, Maps, Pins, io_error};
use crate::netlink::device::Filter;

/// Where our filters stand in a chain: early, since a program before us may end the chain.
const PRIORITY: u16 = 2;
const HANDLE: tc::TcHandle = tc::TcHandle::new(0, 0xba1);

/// Our filters, and the memory of which qdiscs are ours.
pub(super) struct Clsact {
    /// Names the devices that had no clsact qdisc before us, one a line.
    file: PathBuf,
}

impl Clsact {
    pub(super) const fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Puts our filter in place, or our program into the filter that is there.
    pub(super) fn attach(
        &self,
        classifier: &mut SchedClassifier,
        device: &str,
        hook: Hook,
    ) -> Result<(), ProgramError> {
        // An error says that it is there already; if it failed otherwise, so will attaching.
        if tc::qdisc_add_clsact(device).is_ok() {
            remember(&self.file, device).map_err(ProgramError::IOError)?;
        }
        let id = match classifier.attach_to_link(filter(device, hook).map_err(ProgramError::IOError)?) {
            Ok(id) => id,
            Err(_) => classifier.attach_with_options(
                device,
                hook.direction,
                TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None }),
            )?,
        };
        // Dropping the link would detach the filter, which must outlive us.
        std::mem::forget(classifier.take_link(id)?);
        Ok(())
    }

    /// Removes our filters from a device, if there are any.
    pub(super) fn detach(device: &str, hooks: &[Hook]) {
        for &hook in hooks {
            if let Ok(filter) = filter(device, hook) {
                // There being none is the usual case.
                let _ = filter.detach();
            }
        }
    }

    /// The same by index; a device that is gone has taken them with it.
    pub(super) fn detach_index(index: u32) {
        if let Ok(name) = if_indextoname(index) {
            Self::detach(&name.to_string_lossy(), &HOOKS);
        }
    }
}

/// Detaches all programs of an instance: tcx links by their pins, clsact filters, and the clsact qdiscs that it made,
/// where nobody else uses them now. `clsact` is the file that names them.
pub async fn detach(pins: &Pins, clsact: &Path) -> Vec<DatapathError> {
    let mut errors = Vec::new();
    for entry in fs::read_dir(pins.links()).into_iter().flatten().flatten() {
        errors.extend(fs::remove_file(entry.path()).map_err(io_error(entry.path())).err());
    }
    for index in Maps::open(pins).map(|maps| maps.devices()).unwrap_or_default() {
        Clsact::detach_index(index);
    }
    for device in remembered(clsact) {
        if let Err(error) = remove_qdisc(&device).await {
            errors.push(DatapathError::Qdisc { device, source: Box::new(error) });
        }
    }
    errors
}

/// Whether it is a filter of ours, of whatever instance; or what the kernel lists for all of its priority.
pub(crate) fn is_our_filter(filter: &Filter) -> bool {
    filter.kind == "bpf" && filter.priority == PRIORITY && [0, u32::from(HANDLE)].contains(&filter.handle)
}

fn filter(device: &str, hook: Hook) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, hook.direction, PRIORITY, HANDLE, None)
}

fn remembered(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn remember(file: &Path, device: &str) -> io::Result<()> {
    let mut devices = remembered(file);
    devices.insert(device.to_owned());
    fs::write(file, devices.into_iter().map(|device| device + "\n").collect::<String>())
}

/// Removes a device's clsact qdisc, unless there are filters in it, which are then somebody else's.
async fn remove_qdisc(device: &str) -> Result<(), rtnetlink::Error> {
    let Ok(index) = if_nametoindex(device) else { return Ok(()) };
    let index = index.cast_signed();
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|_| rtnetlink::Error::RequestFailed)?;
    let connection = tokio::spawn(connection);
    let mut filters = handle.traffic_filter(index).get().ingress().execute().try_collect::<Vec<_>>().await?;
    filters.extend(handle.traffic_filter(index).get().egress().execute().try_collect::<Vec<_>>().await?);
    let result = if filters.is_empty() {
        let mut request = handle.qdisc().del(index);
        request.message_mut().header.parent = TcHandle::CLSACT;
        request.execute().await
    } else {
        Ok(())
    };
    connection.abort();
    result
}
