//! What happens to flows, from the kernel's news of conntrack entries.

use std::collections::{HashMap, VecDeque};

use balance_common::IspId;

use crate::conntrack::{Ends, Happened, Live};

/// So many flows that have ended are remembered, to know them again when they go on by another ISP.
const REMEMBERED: usize = 1 << 14;

/// What has happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has begun.
    New,
    /// It was on this ISP, and goes on by another one.
    Moved(IspId),
    /// It has lost its ISP, and will be reset.
    Lost,
    /// It has ended, or has been cut.
    Ended,
}

/// Follows flows.
#[derive(Debug, Default)]
pub struct Follower {
    /// By the ids of their entries.
    isps: HashMap<[u8; 4], IspId>,
    left: HashMap<(u8, Ends), IspId>,
    /// In which order they have ended.
    order: VecDeque<(u8, Ends)>,
}

impl Follower {
    /// Takes the kernel's news of a flow, whose mark speaks of this ISP, if of any, and says what it comes to: for which ISP, and
    /// what.
    pub fn observe(
        &mut self,
        happened: Happened,
        live: &Live,
        isp: Option<IspId>,
    ) -> Option<(IspId, Change)> {
        let ends = (live.protocol, live.original);
        match (happened, isp) {
            (Happened::Begun, Some(isp)) => {
                self.isps.insert(live.id, isp);
                let before = self.left.remove(&ends).filter(|before| *before != isp);
                Some((isp, before.map_or(Change::New, Change::Moved)))
            }
            (Happened::Changed, Some(isp)) => {
                // One that is not known has begun before we listened.
                let before = self.isps.insert(live.id, isp).filter(|before| *before != isp)?;
                Some((isp, Change::Moved(before)))
            }
            (Happened::Changed, None) => {
                let before = self.isps.remove(&live.id)?;
                self.remember(ends, before);
                Some((before, Change::Lost))
            }
            (Happened::Ended, _) => {
                let before = self.isps.remove(&live.id).or(isp)?;
                self.remember(ends, before);
                Some((before, Change::Ended))
            }
            (Happened::Begun, None) => None,
        }
    }

    fn remember(&mut self, ends: (u8, Ends), isp: IspId) {
        if self.left.insert(ends, isp).is_none() {
            self.order.push_back(ends);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.left.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use balance_common::{Family, Flow};

    use super::Change::{Ended, Lost, Moved, New};
    use super::Happened::{Begun, Changed};
    use super::*;

    fn isp(number: u8) -> IspId {
        IspId::new(number).unwrap()
    }

    fn live(id: u32, port: u16) -> Live {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let (source, destination) = (ip("192.168.1.10"), ip("1.1.1.1"));
        let original = Ends { source, destination, ports: Some((port, 443)) };
        let reply = Ends { source: destination, destination: ip("192.0.2.2"), ports: Some((443, port)) };
        let flow = Flow {
            family: Family::V4,
            source: source.into(),
            destination: destination.into(),
            protocol: 6,
            source_port: port,
            destination_port: 443,
        };
        Live { id: id.to_be_bytes(), mark: 0, protocol: 6, original, reply, flow, counted: None, begun: None }
    }

    #[test]
    fn flows_begin_move_and_end() {
        let mut follower = Follower::default();
        let mut observe = |happened, id, port, on: Option<u8>| {
            follower.observe(happened, &live(id, port), on.map(isp)).map(|(isp, change)| (isp.get(), change))
        };
        assert_eq!(observe(Begun, 1, 1000, Some(1)), Some((1, New)));
        assert_eq!(observe(Changed, 1, 1000, Some(1)), None, "nothing that counts");
        assert_eq!(observe(Changed, 1, 1000, Some(2)), Some((2, Moved(isp(1)))));
        assert_eq!(observe(Happened::Ended, 1, 1000, Some(2)), Some((2, Ended)));
        // The same again, by another ISP: its entry was deleted to have it move.
        assert_eq!(observe(Begun, 2, 1000, Some(1)), Some((1, Moved(isp(2)))));
        assert_eq!(observe(Happened::Ended, 2, 1000, Some(1)), Some((1, Ended)));
        assert_eq!(observe(Begun, 3, 1000, Some(1)), Some((1, New)), "by the same ISP");
        // Its ISP dies.
        assert_eq!(observe(Changed, 3, 1000, None), Some((1, Lost)));
        assert_eq!(observe(Happened::Ended, 3, 1000, None), None, "told already");
        // Begun before anybody listened.
        assert_eq!(observe(Changed, 4, 2000, Some(1)), None);
        assert_eq!(observe(Changed, 4, 2000, Some(2)), Some((2, Moved(isp(1)))));
        assert_eq!(observe(Happened::Ended, 5, 3000, Some(1)), Some((1, Ended)));
        // Nobody's.
        for happened in [Begun, Changed, Happened::Ended] {
            assert_eq!(observe(happened, 6, 4000, None), None);
        }
    }

    #[test]
    fn what_is_remembered_of_ended_flows_is_bounded() {
        let mut follower = Follower::default();
        for number in 0..60_000_u16 {
            let live = live(number.into(), number);
            follower.observe(Begun, &live, Some(isp(1)));
            follower.observe(Happened::Ended, &live, Some(isp(1)));
        }
        assert!(follower.isps.is_empty());
        assert_eq!((follower.left.len(), follower.order.len()), (REMEMBERED, REMEMBERED));
    }
}
