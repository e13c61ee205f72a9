//! What is asked, checked.

use std::net::IpAddr;

use balance_common::layout::Device;
use balance_common::packet::protocol;
use nix::net::if_::if_indextoname;

use super::super::UsageError;
use super::super::args::Explain;
use super::{InForce, Lan, Maps, Packet, Question, way};
use crate::config::{dscp_named, protocols_named};

/// Stands for any source port: one that clients may have.
const ANY_SOURCE_PORT: u16 = 40_000;

/// What is asked.
pub(super) struct Asked {
    pub(super) from: Option<IpAddr>,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    /// None: any.
    pub(super) source_port: Option<u16>,
    /// 0 where there are no ports.
    pub(super) port: u16,
    pub(super) dscp: u8,
    pub(super) origin: Origin,
}

/// Who begins the flow.
pub(super) enum Origin {
    /// A host of a LAN, of which the name or device may be said.
    Lan(Option<String>),
    /// This machine itself.
    ThisMachine,
}

/// A LAN of the instance.
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: Option<String>,
    pub(super) device: String,
    pub(super) entry: Device,
}

impl Asked {
    /// What the command line asks, if it makes sense.
    pub(super) fn of(arguments: &Explain) -> Result<Self, UsageError> {
        let question = |text: &str| UsageError::Question(text.to_owned());
        let is_v4 = arguments.to.is_ipv4();
        if arguments.from.is_some_and(|from| from.is_ipv4() != is_v4) {
            return Err(question(
                "--from and --to are of different families: give two IPv4 or two IPv6 addresses",
            ));
        }
        let protocols =
            protocols_named(&arguments.proto).or_else(|| Some(vec![arguments.proto.parse().ok()?]));
        let protocol = match protocols.as_deref() {
            Some(&[v4, v6]) => {
                if is_v4 {
                    v4
                } else {
                    v6
                }
            }
            Some(&[only]) => only,
            _ => {
                return Err(question(
                    "--proto must be tcp, udp, sctp, icmp, gre, ipsec, or a number from 0 to 255",
                ));
            }
        };
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let port = match (has_ports, arguments.dport) {
            (true, Some(port)) => port,
            (true, None) => return Err(question("--dport is missing: tcp, udp and sctp have ports")),
            (false, None) if arguments.sport.is_none() => 0,
            (false, _) => {
                return Err(question("only tcp, udp and sctp have ports: leave out --sport and --dport"));
            }
        };
        let dscp =
            arguments.dscp.parse().ok().filter(|dscp| *dscp < 64).or_else(|| dscp_named(&arguments.dscp));
        let dscp = dscp.ok_or_else(|| {
            question("--dscp must be a number from 0 to 63, or a name such as ef, af41 or cs1")
        })?;
        Ok(Self {
            from: arguments.from,
            to: arguments.to,
            protocol,
            source_port: arguments.sport,
            port,
            dscp,
            origin: if arguments.local { Origin::ThisMachine } else { Origin::Lan(arguments.lan.clone()) },
        })
    }

    /// The same for whoever explains it.
    pub(super) fn question(&self, lan: Option<Lan>) -> Question {
        Question {
            from: self.from,
            to: self.to,
            protocol: self.protocol,
            source_port: self.source_port(),
            any_source_port: self.source_port.is_none(),
            port: self.port,
            dscp: self.dscp,
            lan,
        }
    }

    /// The source port, 0 where there are none.
    pub(super) fn source_port(&self) -> u16 {
        if self.port == 0 { 0 } else { self.source_port.unwrap_or(ANY_SOURCE_PORT) }
    }
}

/// The LAN of that name or device, or the one by which the source is reached.
pub(super) async fn find_lan(
    maps: &Maps,
    in_force: Option<&InForce>,
    named: Option<&str>,
    from: Option<IpAddr>,
) -> anyhow::Result<Found> {
    let found = |(index, entry): (u32, Device)| {
        let device = if_indextoname(index).ok()?.to_string_lossy().into_owned();
        let name = in_force.and_then(|in_force| in_force.lans.get(&device).cloned());
        Some(Found { index, name, device, entry })
    };
    let lans: Vec<Found> =
        maps.device_entries().into_iter().filter(|(_, entry)| entry.lan != 0).filter_map(found).collect();
    let list = || {
        let one = |lan: &Found| {
            lan.name.as_ref().map_or_else(|| lan.device.clone(), |name| format!("{name} ({})", lan.device))
        };
        lans.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    if lans.is_empty() {
        let text = "there is no LAN here: ask for flows of this machine itself with --local";
        return Err(UsageError::Question(text.to_owned()).into());
    }
    let error = match (named, from) {
        (Some(named), _) => format!("there is no LAN {named}; there is {}", list()),
        (None, Some(from)) => {
            format!("{from} is not reached by a LAN: say with --lan which one it comes from: {}", list())
        }
        (None, None) => format!("say with --lan which LAN it comes from: {}", list()),
    };
    let index = match (named, from) {
        (None, Some(to)) => {
            let back = Packet { from: None, to, mark: 0, input: None, ports: None };
            way(back).await.ok().and_then(|way| way.index)
        }
        _ => None,
    };
    let is_it = |lan: &Found| match named {
        Some(named) => {
            lan.device == named || lan.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(named))
        }
        None => Some(lan.index) == index,
    };
    lans.into_iter().find(is_it).ok_or_else(|| UsageError::Question(error).into())
}

#[cfg(test)]
mod tests {
    use super::super::super::args::{Command, parse};
    use super::*;

    fn asked(line: &str) -> Result<Asked, UsageError> {
        let cli = parse(["balance-user", "explain"].into_iter().chain(line.split_whitespace())).unwrap();
        let Command::Explain(arguments) = cli.command else { panic!("{line}") };
        Asked::of(&arguments)
    }

    #[test]
    fn protocols_have_the_number_of_their_family_and_ports_only_where_there_are_some() {
        let case = |line: &str| asked(line).map(|asked| (asked.protocol, asked.port, asked.dscp)).unwrap();
        assert_eq!(case("--from 10.0.0.1 --to 1.1.1.1 --dport 443"), (6, 443, 0));
        assert_eq!(case("--from 10.0.0.1 --to 1.1.1.1 --proto icmp --dscp ef"), (1, 0, 46));
        assert_eq!(case("--from fd00::1 --to 2001:db8::1 --proto icmp --dscp 63"), (58, 0, 63));
        assert_eq!(case("--local --to 1.1.1.1 --proto 17 --dport 53"), (17, 53, 0));
        assert_eq!(case("--local --to 1.1.1.1 --proto 99"), (99, 0, 0));
    }

    #[test]
    fn what_makes_no_sense_is_one_clear_line() {
        for (line, fragment) in [
            ("--from fd00::1 --to 1.1.1.1 --dport 1", "different families"),
            ("--from 10.0.0.1 --to 1.1.1.1", "--dport is missing"),
            ("--from 10.0.0.1 --to 1.1.1.1 --proto icmp --dport 1", "leave out"),
            ("--from 10.0.0.1 --to 1.1.1.1 --proto gre --sport 1", "leave out"),
            ("--from 10.0.0.1 --to 1.1.1.1 --proto 256", "--proto must be"),
            ("--from 10.0.0.1 --to 1.1.1.1 --proto TCPP", "--proto must be"),
            ("--from 10.0.0.1 --to 1.1.1.1 --dport 1 --dscp 64", "--dscp must be"),
        ] {
            let error = asked(line).err().unwrap().to_string();
            assert!(error.contains(fragment) && !error.contains('\n'), "{line}: {error}");
        }
    }
}
