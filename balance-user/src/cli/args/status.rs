//! The arguments of `status`.

use std::time::Duration;

use clap::Args;

/// What `status` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// One line for each ISP: name and state
    #[arg(short, long, conflicts_with = "json")]
    pub short: bool,

    /// Everything, for programs
    #[arg(long)]
    pub json: bool,

    /// Draw it anew every so many seconds, 1 if that is left out, until q or Ctrl-C
    #[arg(short, long, value_name = "SECONDS", value_parser = interval, num_args = 0..=1, default_missing_value = "1", conflicts_with = "json")]
    pub watch: Option<Duration>,

    /// One line, and an exit code for scripts: 0 all up, 1 some down, 2 none up, 3 cannot be told
    #[arg(long, conflicts_with_all = ["short", "json", "watch"])]
    pub check: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "use 0.1 to 3600 seconds".to_owned())
}
