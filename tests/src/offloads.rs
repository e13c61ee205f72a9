//! What a device does, or leaves to be done, for the kernel.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, ensure};
use socket2::{Domain, Socket, Type};

use crate::Host;

/// Commands of `linux/ethtool.h` that switch one thing on or off.
#[derive(Clone, Copy, Debug)]
enum Switch {
    TransmitChecksums = 0x17,
    TcpSegmentation = 0x1f,
    Segmentation = 0x24,
    ReceiveMerging = 0x2c,
}

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` of `linux/if.h`, as this request uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    _rest: [u8; 16],
}

impl Host {
    /// Has a device send packets only that are complete: with their checksums, and no longer than its MTU.
    ///
    /// # Errors
    /// When there is no such device, or it does not do as told.
    pub fn offloads_off(&self, device: &str) -> anyhow::Result<()> {
        self.switch(device, Switch::TransmitChecksums, false)?;
        self.switch(device, Switch::TcpSegmentation, false)?;
        self.switch(device, Switch::Segmentation, false)
    }

    /// Has a device merge what it receives (GRO). A veth that does so also takes what an XDP program redirects to its
    /// other end.
    ///
    /// # Errors
    /// As [`Host::offloads_off`].
    pub fn gro_on(&self, device: &str) -> anyhow::Result<()> {
        self.switch(device, Switch::ReceiveMerging, true)
    }

    fn switch(&self, device: &str, switch: Switch, on: bool) -> anyhow::Result<()> {
        self.run(|| set(device, switch, on))
            .with_context(|| format!("cannot set {switch:?} of {device} on {} to {on}", self.name()))
    }
}

fn set(device: &str, switch: Switch, on: bool) -> anyhow::Result<()> {
    ensure!(device.len() < libc::IFNAMSIZ, "no name of a device");
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from;
    }
    let mut value = Value { command: switch as u32, data: on.into() };
    let request = Request { name, value: &raw mut value, _rest: [0; 16] };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: the request is as `linux/if.h` has it, and it and what it points to outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_size() {
        assert_eq!(size_of::<Request>(), 40);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        set("no-such-device", Switch::ReceiveMerging, true).unwrap_err();
        set("a-name-that-is-too-long", Switch::ReceiveMerging, true).unwrap_err();
    }
}
