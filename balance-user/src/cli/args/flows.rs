//! The arguments of `flows`.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;

/// What `flows` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Flows {
    /// Those of one ISP
    #[arg(long, value_name = "NAME")]
    pub isp: Option<String>,

    /// Those begun by an address, or from a network
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub source: Option<IpNet>,

    /// A JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Tell what begins, moves and ends from now on, until interrupted, and not what is there
    #[arg(short, long)]
    pub follow: bool,
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| "use an address or a prefix, such as 192.168.1.0/24".to_owned())
}
