//! The nft table: its text ([`table`]), putting it into the kernel ([`nft`]) and noticing that somebody else
//! touched the ruleset ([`watch`]).

pub mod networks;
pub mod nft;
pub mod reset;
pub mod table;
pub mod watch;

pub use nft::{Installed, NftError};
pub use table::{NatIsp, nft_table};
pub use watch::Watch;

use crate::core::plan::NftTable;

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
