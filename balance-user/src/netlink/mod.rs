//! What the kernel says of devices, addresses, routes and rules, and making its routes and rules as planned.
//!
//! [`watch::Watcher`] keeps a [`crate::core::network::Network`] current. [`routes::reconcile`] and
//! [`rules::reconcile`] bring routes and rules in line with a plan; [`remove_all`] takes them away again, and
//! [`commands::commands`] says the same in the words of `ip`.
//!
//! All of it speaks rtnetlink through one small socket of its own rather than through a connection task: a full
//! routing table of a million routes must neither be parsed nor queued to find the few default routes in it,
//! and after an overrun the socket has to be read empty *before* the state is read anew (see
//! [`watch::Watcher`]). Sockets belong to the network namespace of the thread that calls.

pub mod commands;
mod delegation;
pub mod device;
pub mod foreign;
mod generic;
pub mod lookup;
pub mod message;
pub mod routes;
pub mod rules;
mod socket;
pub mod watch;

pub use generic::xdp_features;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::{Range, RangeInclusive};

/// How often a reconciler looks again after it changed something: what the kernel takes for "the same" route or
/// rule when it replaces or deletes is wider than ours, so one round may undo a little of what it did.
const ROUNDS: usize = 3;

/// Takes away all routes and rules of ours in these tables and priorities, and those routes of the main table that have the
/// first of these priorities as their metric. Those of others stay. All errors are
/// collected, none stops the rest.
pub async fn remove_all(tables: RangeInclusive<u32>, priorities: Range<u32>) -> Vec<NetlinkError> {
    // Rules first, so that no packet is led into tables that are being emptied.
    let metric = priorities.start;
    let mut errors = rules::reconcile(&BTreeSet::new(), priorities).await;
    errors.extend(routes::reconcile_networks(&BTreeMap::new(), metric).await);
    errors.extend(routes::reconcile(&BTreeMap::new(), tables).await);
    errors
}

/// Something went wrong between us and the kernel's routing.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket, or it broke.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused a request.
    #[error("cannot {action}: {refusal}")]
    Refused {
        /// What was to be done, such as "add default route of table 1001".
        action: String,
        /// What the kernel answered.
        refusal: Refusal,
    },
    /// What was put in place did not stay: somebody else keeps changing it.
    #[error("the {0} of ours do not stay as they are set; something else keeps changing them")]
    Unsettled(&'static str),
}

impl NetlinkError {
    /// The device that it is about does not exist.
    #[must_use]
    pub const fn is_no_device(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.errno == libc::ENODEV)
    }
}

/// The kernel's answer to a request it did not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number (`ENODEV`...), positive.
    pub errno: i32,
    /// The kernel's own words, where it has some.
    pub detail: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.detail {
            Some(detail) => write!(f, "{error}: {detail}"),
            None => write!(f, "{error}"),
        }
    }
}
