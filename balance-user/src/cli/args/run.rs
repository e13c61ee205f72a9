//! The arguments of `run`.

use std::path::PathBuf;

use clap::Args;

use crate::config::DEFAULT_PATH;

/// What `run` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// The config
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Print what would be done, as commands, and do nothing; needs no root
    #[arg(short, long)]
    pub dry_run: bool,

    /// Use these ISPs and no others, whatever their probes say
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}
