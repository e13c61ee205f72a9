//! What the core is told, and what it asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use balance_common::layout::Forced;
use balance_common::{Family, IspId};
use jiff::civil::Date;

use super::health::{Attempts, Probe, Traffic};
use super::meter::{Reading, Today};
use super::network::Network;
use crate::announce::event::Change;
use crate::config::Config;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The network is now like this.
    Network(Network),
    /// A probe was answered.
    Answered {
        /// Of this ISP.
        isp: IspId,
        /// In this family.
        family: Family,
        /// The probe's.
        sequence: u64,
        /// The time it took.
        rtt: Duration,
    },
    /// A probe could not be sent, or was rejected on the way.
    Failed {
        /// Of this ISP.
        isp: IspId,
        /// In this family.
        family: Family,
        /// The probe's.
        sequence: u64,
        /// Why, for the operator.
        why: String,
    },
    /// What a probe asks cannot be asked by this path.
    Inapplicable {
        /// Of this ISP.
        isp: IspId,
        /// In this family.
        family: Family,
        /// The probe's.
        sequence: u64,
        /// Why, for the operator.
        why: String,
    },
    /// What the ISPs' devices have sent and received so far, in packets.
    Traffic(BTreeMap<IspId, Traffic>),
    /// What TCP connections were asked for by the ISPs' devices so far, and how many were answered.
    Attempts(BTreeMap<IspId, Attempts>),
    /// Nobody could look at anything for so long: whoever calls was stopped, or the machine was asleep.
    HeldUp(Duration),
    /// How far the counters of the ISPs that are metered have come.
    Volume {
        /// The counters.
        readings: BTreeMap<IspId, Reading>,
        /// What the clock says.
        today: Today,
    },
    /// The operator knows better what an ISP has used of its quota.
    SetUsed {
        /// The ISP.
        isp: IspId,
        /// Bytes.
        bytes: u64,
        /// The day on the wall.
        today: Date,
    },
    /// The operator changes a weight.
    SetWeight {
        /// The ISP.
        isp: IspId,
        /// Its new weight; the nearest that it can have.
        weight: u16,
    },
    /// The operator forces an ISP up or down, or lets health decide again.
    Force {
        /// The ISP.
        isp: IspId,
        /// What it should be.
        forced: Forced,
    },
    /// The config is now this one.
    Reload(Box<Config>),
}

/// Something to do once; what should last is in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a probe.
    Probe {
        /// Of this ISP.
        isp: IspId,
        /// In this family.
        family: Family,
        /// Which.
        probe: Probe,
    },
    /// Delete an ISP's conntrack entries of a family, so that its flows go by another one.
    DeleteFlows {
        /// The ISP.
        isp: IspId,
        /// The family.
        family: Family,
        /// Its connections cannot go on, so TCP's may be reset.
        reset: bool,
    },
    /// The ISP has delegated another prefix. Once new flows are translated to that one, delete its IPv6 flows: those that
    /// were translated to the old one have no future.
    Renumbered {
        /// The ISP.
        isp: IspId,
    },
    /// An ISP that was unusable is usable again. Once new flows go there, those that have gone elsewhere meanwhile may follow.
    Returned {
        /// The ISP.
        isp: IspId,
        /// In this family.
        family: Family,
    },
    /// Tell the operator that an ISP changed its state.
    Announce {
        /// The ISP's name.
        isp: String,
        /// What it is now.
        state: String,
        /// Why, if there is anything to say.
        reason: String,
        /// What has changed; none if it is only the first word about it.
        change: Option<Box<Change>>,
    },
    /// Tell the operator of an ISP's quota.
    AnnounceQuota(Box<Change>),
}
