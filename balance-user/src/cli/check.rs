//! `check`: is the config right?

use std::path::Path;

use anyhow::Context;

use super::{UsageError, output};
use crate::config::Config;

pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path).map_err(UsageError::from)?;
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let isps = names(config.isps.iter().map(|isp| isp.name.as_str()).collect());
    let lans = names(config.lans.iter().map(|lan| lan.name.as_str()).collect());
    output::print(&format!("{}: good; ISPs: {isps}; LANs: {lans}\n", path.display())).context("cannot print")
}
