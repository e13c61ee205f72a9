//! `import`: a config of Net::ISP::Balance, as one of ours.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

use super::{UsageError, output};
use crate::config::{ConfigError, error};
use crate::import;

pub(super) fn import(file: &Path) -> anyhow::Result<()> {
    let toml = read(file).and_then(|(text, name)| import::to_toml(&text, name)).map_err(UsageError::from)?;
    output::print(&toml).context("cannot print")
}

/// The text, and what errors call the file.
fn read(file: &Path) -> Result<(String, &Path), ConfigError> {
    if file != "-" {
        return Ok((error::read(file)?, file));
    }
    let name = Path::new("<stdin>");
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|source| ConfigError::Read { path: name.to_owned(), source })?;
    Ok((error::utf8(bytes, name)?, name))
}
