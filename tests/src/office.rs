//! A second LAN.

use std::net::IpAddr;

use crate::{Family, Host, Lab};

/// The LAN OFFICE, with one host, at the router's device `lan1`.
pub struct Office {
    host: Host,
}

impl Office {
    /// What the daemon's config says of it.
    pub const CONFIG: &str = "\n[[lan]]\nname = \"OFFICE\"\ndevice = \"lan1\"\n";

    /// Sets it up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn join(lab: &Lab) -> anyhow::Result<Self> {
        let host = Host::new("office")?;
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let link = format!("link add lan1 type veth peer name eth0 netns {}", host.netns());
        lab.router().ip(&lines(&[
            &link,
            "addr add 192.168.2.1/24 dev lan1",
            "addr add fd00:2::1/64 dev lan1 nodad",
            "link set lan1 up",
        ]))?;
        host.ip(&lines(&[
            "addr add 192.168.2.10/24 dev eth0",
            "addr add fd00:2::10/64 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 192.168.2.1",
            "route add ::/0 via fd00:2::1",
        ]))?;
        Ok(Self { host })
    }

    /// Its host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The host's address.
    #[must_use]
    pub fn address(family: Family) -> IpAddr {
        match family {
            Family::V4 => [192, 168, 2, 10].into(),
            Family::V6 => [0xfd00, 2, 0, 0, 0, 0, 0, 0x10].into(),
        }
    }
}
