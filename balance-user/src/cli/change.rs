//! `set-weight`, `up`, `down`, `auto` and `quota`: changes to a running daemon.

use anyhow::bail;

use super::UsageError;
use super::args::SetWeight;
use crate::config::save::{check_save, save_weight};
use crate::control::{Force, Request, Response, ask};
use crate::daemon::Instance;

pub(super) fn set_weight(instance: &str, set: &SetWeight) -> anyhow::Result<()> {
    if set.save {
        // Before anything is changed: the change and its saving fail together.
        check_save(&set.config, &set.name, set.weight).map_err(UsageError::from)?;
    }
    let request = Request::SetWeight { isp: set.name.clone(), weight: set.weight };
    change(instance, &set.name, &request)?;
    if set.save {
        save_weight(&set.config, &set.name, set.weight).map_err(UsageError::from)?;
    }
    Ok(())
}

pub(super) fn force(instance: &str, isp: String, to: Force) -> anyhow::Result<()> {
    change(instance, &isp.clone(), &Request::Force { isp, to })
}

pub(super) fn set_used(instance: &str, isp: String, bytes: u64) -> anyhow::Result<()> {
    change(instance, &isp.clone(), &Request::SetUsed { isp, bytes })
}

/// Asks the daemon to change something; `name` is that of the ISP.
pub(super) fn change(instance: &str, name: &str, request: &Request) -> anyhow::Result<()> {
    match ask(&Instance::new(instance), request)? {
        Response::Done => Ok(()),
        Response::NoSuchIsp { isps } => Err(UsageError::NoSuchIsp { name: name.to_owned(), isps }.into()),
        Response::Error { message } => bail!(message),
        Response::Quality { .. } | Response::InForce(_) | Response::Tallies(_) => {
            bail!("the daemon answers another question; is it of another version?")
        }
    }
}
