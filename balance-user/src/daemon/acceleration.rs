//! Which devices forward known flows by themselves, and how.

use std::collections::{BTreeMap, BTreeSet};

use balance_common::layout::Device;

use crate::config::Acceleration;
use crate::control::DeviceAcceleration;
use crate::core::plan::Attachment;
use crate::datapath::{Datapath, DatapathError, Maps, XdpLinks};
use crate::devices::{self, Choice, Kind, acceleration_of};
use crate::netlink::NetlinkError;

/// What accelerates the devices.
#[derive(Debug, Default)]
pub(super) struct Accelerator {
    links: XdpLinks,
    /// By the device's index: its name and what was found to be best.
    choices: BTreeMap<u32, (String, Choice)>,
}

/// A device is not accelerated as it should be. The next look tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccelerationError {
    /// It cannot be looked at.
    #[error("cannot tell what {device} can do for the fast path: {source}")]
    Look {
        /// The device's name.
        device: String,
        /// Why.
        source: NetlinkError,
    },
    /// A map or a program.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

impl Accelerator {
    /// Notes in the devices' entries how they are accelerated.
    pub(super) fn equip(&self, devices: &mut BTreeMap<u32, Device>) {
        for (index, device) in devices {
            let kind = self.choices.get(index).map_or(Kind::Off, |(_, choice)| choice.kind);
            device.fast = u8::from(kind != Kind::Off);
            device.xdp = u8::from(kind == Kind::Xdp);
        }
    }

    /// Looks at the devices, and has those run the XDP program that should.
    pub(super) async fn look(
        &mut self,
        wanted: Acceleration,
        attachments: &BTreeSet<Attachment>,
        datapath: &mut Datapath,
        maps: &mut Maps,
    ) -> Vec<AccelerationError> {
        let mut errors = self.choose(wanted, attachments, datapath).await;
        let xdp: BTreeMap<u32, String> = self
            .choices
            .iter()
            .filter(|(_, (_, choice))| choice.kind == Kind::Xdp)
            .map(|(&index, (name, _))| (index, name.clone()))
            .collect();
        let failed = match datapath.attach_xdp(&mut self.links, &xdp) {
            Ok(failed) => failed,
            Err(error) => {
                errors.push(error.into());
                BTreeMap::new()
            }
        };
        if !xdp.is_empty() {
            // Many drivers take packets from XDP only once they run a program themselves.
            errors.extend(self.choose(wanted, attachments, datapath).await);
        }
        for (index, error) in failed {
            if let Some((_, choice)) = self.choices.get_mut(&index) {
                choice.kind = Kind::Tc;
                choice.reason = Some(error.to_string());
            }
        }
        let targets = self.choices.iter().filter(|(_, (_, choice))| choice.xdp_target);
        errors
            .extend(maps.set_xdp_targets(&targets.map(|(&index, _)| index).collect()).err().map(Into::into));
        errors
    }

    /// How each device is accelerated, for people.
    pub(super) fn report(&self) -> Vec<DeviceAcceleration> {
        let report = |(device, choice): &(String, Choice)| DeviceAcceleration {
            device: device.clone(),
            kind: choice.kind.name().to_owned(),
            reason: choice.reason.clone().or_else(|| choice.target_reason.clone()),
        };
        self.choices.values().map(report).collect()
    }

    async fn choose(
        &mut self,
        wanted: Acceleration,
        attachments: &BTreeSet<Attachment>,
        datapath: &Datapath,
    ) -> Vec<AccelerationError> {
        let ours = datapath.pins().programs();
        let mut errors = Vec::new();
        let mut choices = BTreeMap::new();
        for Attachment { index, device, .. } in attachments {
            match devices::look(*index, &ours).await {
                Ok(Some(facts)) => {
                    drop(choices.insert(*index, (device.clone(), acceleration_of(wanted, &facts))));
                }
                // It has just gone.
                Ok(None) => {}
                Err(source) => {
                    // It goes on as it was.
                    choices.extend(self.choices.remove_entry(index));
                    errors.push(AccelerationError::Look { device: device.clone(), source });
                }
            }
        }
        self.choices = choices;
        errors
    }
}
