//! The arguments of `events`.

use clap::Args;

/// What `events` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Events {
    /// Go on with what happens from now on, until interrupted
    #[arg(short, long)]
    pub follow: bool,

    /// A JSON object a line
    #[arg(long)]
    pub json: bool,

    /// So many, the latest; all that are kept if left out, or 10 with --follow
    #[arg(short, value_name = "N")]
    pub number: Option<usize>,

    /// Those of one ISP
    #[arg(long, value_name = "NAME")]
    pub isp: Option<String>,
}
