//! The manual page of the config.

use anyhow::Result;
use clap_mangen::roff::{Roff, roman};

use crate::{File, SOURCE, markdown};

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// `balance.toml(5)`.
pub(crate) fn page() -> Result<File> {
    let mut roff = Roff::new();
    roff.control("TH", ["balance.toml", "5", "", SOURCE, "balance"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("balance.toml - the configuration of balance")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.extend([markdown::to_roff(REFERENCE)]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("balance-user(1), balance-user-check(1), balance-user-run(1)")]);
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(File { path: "man/man5/balance.toml.5".into(), text })
}
