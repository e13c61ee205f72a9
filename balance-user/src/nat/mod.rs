//! The nft table: its text ([`table`], [`npt`], [`local`] and [`extras`]), putting it into the kernel ([`nft`]) and noticing
//! that somebody else touched the ruleset ([`watch`]).

mod firewall;
mod forward;
pub mod local;
mod mss;
pub mod networks;
pub mod nft;
pub mod npt;
mod own;
pub mod refuse;
pub mod reset;
pub mod table;
pub mod watch;

pub(crate) use forward::outside as forwarded_addresses;
pub use local::{Standing, local_chains};
pub use nft::{Installed, NftError};
pub use npt::Ipv6Nat;
pub use table::{NatIsp, nft_table};
pub use watch::Watch;

use balance_common::IspId;

use crate::config::Config;
use crate::core::network::Network;
use crate::core::plan::NftTable;

/// What the config wants in the table of this name besides balancing, as chains of their own: forwards, the firewall, and
/// TCP's segments made to fit. The network tells addresses and kinds of devices.
#[must_use]
pub fn extras(table: &str, config: &Config, network: &Network) -> String {
    [forward::chains(config, network), firewall::chains(table, config), mss::chain(config, network)].concat()
}

/// The table as a config that is not in force yet would have it, to find out whether the kernel takes it: with ids as in the
/// order of the file, and without what depends on the network.
#[must_use]
pub fn draft(table: &str, config: &Config) -> NftTable {
    let isps: Vec<NatIsp> = (1..)
        .zip(&config.isps)
        .filter_map(|(id, isp)| {
            Some(NatIsp { id: IspId::new(id)?, device: isp.device.clone(), ipv6: Ipv6Nat::default() })
        })
        .collect();
    let mut draft = nft_table(table, config.mark_mask, &isps);
    draft.body.push_str(&extras(table, config, &Network::default()));
    draft
}

/// The shell command that puts the table in place, for `--dry-run`.
#[must_use]
pub fn commands(table: &NftTable) -> String {
    format!("nft -f - <<'EOF'\n{}EOF\n", nft::replacement(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dry_run_shows_the_script_that_is_applied() {
        let table = NftTable { name: "balance".into(), body: "\tchain a {\n\t}\n".into() };
        assert_eq!(
            commands(&table),
            "nft -f - <<'EOF'\ntable inet balance {}\ndelete table inet balance\n\
             table inet balance {\n\tchain a {\n\t}\n}\nEOF\n"
        );
    }
}
