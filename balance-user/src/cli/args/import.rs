//! The arguments of `import`.

use std::path::PathBuf;

use clap::Args;

use crate::import;

/// What `import` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Import {
    /// The config of Net::ISP::Balance; `-` is standard input
    #[arg(value_name = "FILE", default_value = import::DEFAULT_PATH)]
    pub file: PathBuf,
}
