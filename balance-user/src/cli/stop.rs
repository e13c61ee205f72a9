//! `stop`: everything as it was.

use anyhow::Context;

use super::{output, runtime};
use crate::daemon::{self, Instance};

pub(super) fn stop(instance: &str) -> anyhow::Result<()> {
    let was_there = runtime().context("cannot start")?.block_on(daemon::stop(&Instance::new(instance)))?;
    let text = if was_there { "stopped; everything is as it was\n" } else { "nothing to stop\n" };
    output::print(text).context("cannot print")
}
