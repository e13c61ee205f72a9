//! The control socket: HTTP with JSON. `docs/openapi.json` describes it.

mod answer;
pub mod api;
mod biggest;
mod client;
mod connection;
pub mod in_force;
mod live;
mod observer;
mod peer;
mod server;
pub mod tallies;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use client::{ControlError, ask};
pub use server::{Asked, Services, listen};

use crate::core::Quality;

use self::in_force::InForce;
use self::tallies::Tallies;

/// What can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// What only it knows of the ISPs.
    Quality,
    /// What the config in force says of flows.
    InForce,
    /// What it has counted.
    Tallies,
    /// Another weight for an ISP.
    SetWeight {
        /// Its name.
        isp: String,
        /// The weight, 1 to 1000.
        weight: u16,
    },
    /// An ISP is to be used, or not, whatever its health; or its health is to decide.
    Force {
        /// Its name.
        isp: String,
        /// What it is to be.
        to: Force,
    },
    /// An ISP has used so much of its quota, whatever was counted.
    SetUsed {
        /// Its name.
        isp: String,
        /// Bytes.
        bytes: u64,
    },
    /// What the fast path has learned of an ISP, or of all, is void.
    Flush {
        /// The ISP's name.
        isp: Option<String>,
    },
    /// End, leaving the kernel as it is.
    Quit,
}

/// What an ISP is forced to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// In use.
    Up,
    /// Not in use.
    Down,
    /// What its health says.
    Auto,
}

/// How the packets of known flows that come in by a device are forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAcceleration {
    /// The device's name.
    pub device: String,
    /// `xdp`, `tc` or `off`.
    pub kind: String,
    /// Why not faster, if they could be.
    pub reason: Option<String>,
}

/// How the traffic of the machine itself is shared by the ISPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTraffic {
    /// `sockets` where each socket is given its ISP, `route` where only the weighted default route decides.
    pub kind: String,
    /// Why not by socket.
    pub reason: Option<String>,
}

impl LocalTraffic {
    /// Each socket is given its ISP.
    #[must_use]
    pub fn by_socket() -> Self {
        Self { kind: "sockets".to_owned(), reason: None }
    }

    /// Only the weighted default route decides, for this reason.
    #[must_use]
    pub fn by_route(reason: Option<String>) -> Self {
        Self { kind: "route".to_owned(), reason }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// What it knows, by the ISPs' names.
    Quality {
        /// Of each ISP.
        isps: BTreeMap<String, Quality>,
        /// Of the devices.
        acceleration: Vec<DeviceAcceleration>,
        /// Of the machine itself.
        local_traffic: LocalTraffic,
        /// Of scripts: those that have failed, a line each.
        scripts: Vec<String>,
        /// Of announcements: who does not take them, a line each.
        announcements: Vec<String>,
    },
    /// What the config in force says of flows.
    InForce(InForce),
    /// What it has counted.
    Tallies(Tallies),
    /// There is no such ISP.
    NoSuchIsp {
        /// The ISPs that there are.
        isps: Vec<String>,
    },
    /// It makes no sense, or failed.
    Error {
        /// Why.
        message: String,
    },
}
