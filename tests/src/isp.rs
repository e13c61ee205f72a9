//! An ISP of the lab, and all that can go wrong with one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use crate::addresses::IspNet;
use crate::{Family, Host};

/// An ISP: a machine that forwards between the router (its device `router`) and the internet host (`internet`).
///
/// As real ones do, it drops packets from the router whose source is not of its own prefix.
pub struct Isp {
    pub(crate) spec: IspSpec,
    pub(crate) net: IspNet,
    host: Host,
    faults: Mutex<Faults>,
}

/// What to make of an ISP.
#[derive(Clone, Debug)]
pub struct IspSpec {
    pub(crate) name: String,
    pub(crate) weight: u16,
    pub(crate) has_v6: bool,
}

impl IspSpec {
    /// An ISP with IPv4 and IPv6 and weight 1; `CABLE` is device `cable0` of the router.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), weight: 1, has_v6: true }
    }

    /// Its weight in [`crate::Lab::config`].
    #[must_use]
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Without IPv6.
    #[must_use]
    pub fn v4_only(mut self) -> Self {
        self.has_v6 = false;
        self
    }
}

/// How many packets an ISP has forwarded, or refused to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// From the router to the internet host.
    pub to_internet: u64,
    /// From the internet host to the router.
    pub to_router: u64,
    /// From the router with a source address that is not of this ISP: dropped.
    pub foreign: u64,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    death: Death,
    /// Percent.
    loss: u8,
}

#[derive(Clone, Copy, Default)]
enum Death {
    #[default]
    Alive,
    Silent,
    BehindGateway,
    Outbound,
    Inbound,
}

impl Isp {
    pub(crate) fn new(spec: IspSpec, number: u8) -> anyhow::Result<Self> {
        let host = Host::new(&spec.name)?;
        Ok(Self { spec, net: IspNet(number), host, faults: Mutex::default() })
    }

    /// Its name, such as `CABLE`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its device on the router, such as `cable0`.
    #[must_use]
    pub fn device(&self) -> String {
        format!("{}0", self.spec.name.to_lowercase())
    }

    /// The machine that it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The router's address at this ISP: what the internet host sees of flows that go by it.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.net.router_v4().into(),
            Family::V6 => self.net.router_v6().into(),
        }
    }

    /// Its own IPv4 address, the router's next hop.
    #[must_use]
    pub fn gateway_v4(&self) -> Ipv4Addr {
        self.net.gateway_v4()
    }

    /// Its own IPv6 address, the router's next hop.
    #[must_use]
    pub fn gateway_v6(&self) -> Ipv6Addr {
        self.net.gateway_v6()
    }

    /// Dies silently: carrier stays, ARP and neighbour discovery work, nothing else does in either direction.
    ///
    /// # Errors
    /// When nft fails; likewise for the other faults.
    pub fn die_silently(&self) -> anyhow::Result<()> {
        self.fail(|faults| faults.death = Death::Silent)
    }

    /// Dies behind its gateway, which itself still answers.
    ///
    /// # Errors
    /// When nft fails.
    pub fn die_behind_gateway(&self) -> anyhow::Result<()> {
        self.fail(|faults| faults.death = Death::BehindGateway)
    }

    /// Loses all that goes to the internet, behind its gateway; what comes from there arrives.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lose_outbound(&self) -> anyhow::Result<()> {
        self.fail(|faults| faults.death = Death::Outbound)
    }

    /// Loses all that comes from the internet, behind its gateway; what goes there arrives.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lose_inbound(&self) -> anyhow::Result<()> {
        self.fail(|faults| faults.death = Death::Inbound)
    }

    /// Lives again; loss stays as it is.
    ///
    /// # Errors
    /// When nft fails.
    pub fn revive(&self) -> anyhow::Result<()> {
        self.fail(|faults| faults.death = Death::Alive)
    }

    /// Loses so many percent of the packets in each direction, at random. 0 loses none.
    ///
    /// # Errors
    /// When nft fails.
    pub fn set_loss(&self, percent: u8) -> anyhow::Result<()> {
        self.fail(|faults| faults.loss = percent.min(100))
    }

    /// Takes the carrier away from the router's device, or gives it back, by its far end.
    ///
    /// # Errors
    /// When there is no such device: after [`crate::Lab::unplug`].
    pub fn set_carrier(&self, carrier: bool) -> anyhow::Result<()> {
        let state = if carrier { "up" } else { "down" };
        self.host.ip(&[format!("link set router {state}")])
    }

    /// Reads its counters.
    ///
    /// # Errors
    /// When nft fails.
    pub fn forwarded(&self) -> anyhow::Result<Forwarded> {
        let json = self.host.feed("nft", &["-j", "list", "counters", "table", "inet", "count"], "")?;
        let json: serde_json::Value = serde_json::from_str(&json)?;
        let counter = |name: &str| {
            let entries = json.get("nftables").and_then(|entries| entries.as_array())?;
            let mut counters = entries.iter().filter_map(|entry| entry.get("counter"));
            let counter = counters.find(|counter| counter.get("name").is_some_and(|found| found == name))?;
            counter.get("packets")?.as_u64()
        };
        let read =
            |name: &str| counter(name).with_context(|| format!("{} has no counter {name}", self.name()));
        Ok(Forwarded {
            to_internet: read("to_internet")?,
            to_router: read("to_router")?,
            foreign: read("foreign")?,
        })
    }

    /// Addresses, routes, forwarding and counters, once its devices exist.
    pub(crate) fn set_up(&self) -> anyhow::Result<()> {
        // IPv6 addresses survive a loss of carrier, as IPv4 addresses do.
        self.host.sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv6.conf.all.keep_addr_on_down", "1"),
        ])?;
        let net = self.net;
        let mut lines = self.near_lines();
        lines.extend([
            format!("addr add {}/24 dev internet", net.far_v4()),
            format!("addr add {}/64 dev internet nodad", net.far_v6()),
            "link set internet up".to_owned(),
            format!("route add default via {}", net.internet_v4()),
            format!("route add ::/0 via {}", net.internet_v6()),
        ]);
        self.host.ip(&lines)?;
        let counters = format!(
            "table inet count {{
                counter to_internet {{}}
                counter to_router {{}}
                counter foreign {{}}
                set own_v6 {{ type ipv6_addr; flags interval; elements = {{ {} }} }}
                chain forward {{
                    type filter hook forward priority 0;
                    iifname router ip saddr != {} counter name foreign drop
                    iifname router ip6 saddr != @own_v6 counter name foreign drop
                    iifname router counter name to_internet
                    iifname internet counter name to_router
                }}
            }}",
            net.prefix_v6(),
            net.prefix_v4()
        );
        self.host.feed("nft", &["-f", "-"], &counters)?;
        Ok(())
    }

    /// The lines of `ip` that set up its end of the router's line.
    pub(crate) fn near_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("addr add {}/24 dev router", self.net.gateway_v4())];
        if self.spec.has_v6 {
            lines.push(format!("addr add {}/64 dev router nodad", self.net.gateway_v6()));
        }
        lines.push("link set router up".to_owned());
        lines
    }

    fn fail(&self, change: impl FnOnce(&mut Faults)) -> anyhow::Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = *faults;
        change(&mut new);
        let rules = new.rules();
        self.host.feed("nft", &["-f", "-"], &rules).with_context(|| format!("in these rules:\n{rules}"))?;
        *faults = new;
        Ok(())
    }
}

impl Faults {
    /// The nft script that replaces the faults so far by these.
    fn rules(self) -> String {
        // Resolving addresses is the device's doing, and works on a line whose far side is dead. ARP is not seen here.
        let neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
        let (here, through) = match self.death {
            Death::Alive => ("accept", "accept"),
            Death::Silent => ("drop", "drop"),
            Death::BehindGateway => ("accept", "drop"),
            Death::Outbound => ("accept", "iifname router drop"),
            Death::Inbound => ("accept", "iifname internet drop"),
        };
        let loss = self.loss;
        format!(
            "table inet faults
            delete table inet faults
            table inet faults {{
                chain in {{
                    type filter hook prerouting priority -300;
                    {neighbours}
                    numgen random mod 100 < {loss} drop
                }}
                chain here {{
                    type filter hook input priority 0;
                    {neighbours}
                    {here}
                }}
                chain through {{
                    type filter hook forward priority -10;
                    {through}
                }}
                chain out {{
                    type filter hook output priority 0;
                    {neighbours}
                    {here}
                }}
            }}"
        )
    }
}
