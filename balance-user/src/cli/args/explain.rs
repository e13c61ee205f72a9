//! The arguments of `explain`.

use std::net::IpAddr;

use clap::Args;

/// What `explain` must be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Explain {
    /// Who begins the flow; with --local, the address that the socket is bound to, if any
    #[arg(long, value_name = "ADDRESS", required_unless_present = "local")]
    pub from: Option<IpAddr>,

    /// To whom
    #[arg(long, value_name = "ADDRESS")]
    pub to: IpAddr,

    /// The protocol: tcp, udp, sctp, icmp, gre, ipsec or a number
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    pub proto: String,

    /// The source port of tcp, udp and sctp; any, if it is left out
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub sport: Option<u16>,

    /// The destination port of tcp, udp and sctp
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub dport: Option<u16>,

    /// How the packet is marked for priority: 0 to 63, or a name such as ef
    #[arg(long, value_name = "DSCP", default_value = "0")]
    pub dscp: String,

    /// The LAN that the flow comes from, by its name or its device; if it is left out, the one that the source is reached by
    #[arg(long, value_name = "LAN", conflicts_with = "local")]
    pub lan: Option<String>,

    /// It is this machine itself that begins the flow
    #[arg(long)]
    pub local: bool,

    /// Everything, for programs
    #[arg(long)]
    pub json: bool,
}
