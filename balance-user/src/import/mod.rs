//! Configs of [Net::ISP::Balance](https://github.com/lstein/Net-ISP-Balance) (NIB) 1.33 as ours.
//!
//! A text becomes NIB's data, with everything checked that could make our config refuse what comes out, and the data
//! becomes TOML. NIB passes over what it does not understand; here it is an error that points at it.

mod lsm;
mod parse;
mod toml;

use std::path::Path;

use crate::config::ConfigError;

pub use self::parse::is_nib;

/// Where NIB has its config on Debian and its like.
pub const DEFAULT_PATH: &str = "/etc/network/balance.conf";

/// The TOML, with comments, that says what a config of NIB says. The path is only named in errors.
pub fn to_toml(text: &str, path: &Path) -> Result<String, ConfigError> {
    let nib = parse::nib(text).map_err(|problem| problem.locate(text, path))?;
    Ok(nib.to_string())
}
