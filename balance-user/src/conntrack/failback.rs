//! Flows that go back to an ISP that is usable again: their entries are deleted, so that their next packets begin them anew. An
//! open TCP connection cannot move; it is lost, if those are reset.
//!
//! That a flow is idle is seen by its entry: while no packet comes, the moment at which it would end stays the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use balance_common::{Family, Flow, IspId};

use super::entry::Entry;
use super::socket::{ConntrackSocket, mark_attributes};
use super::{ConntrackError, IspMark, Updates, netfilter_family};

/// How far the end of an entry may seem to move without a packet: the kernel tells it in whole seconds, and by another clock.
const TOLERANCE: Duration = Duration::from_millis(1500);
/// So much later than the first look a packet can have come without being noticed: what may seem to be none, and the fraction
/// of a second that the kernel has left out.
const BLUR: Duration = Duration::from_millis(2500);

/// The flows that wait until they are idle.
#[derive(Debug, Default)]
pub struct Returning {
    /// By the ids of their entries.
    waiting: HashMap<[u8; 4], Sighting>,
    has_begun: bool,
}

/// How many flows have moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// All of them.
    pub flows: usize,
    /// Those among them that are TCP connections and were lost.
    pub lost: usize,
    /// The ISPs that they have left without having been idle.
    pub abruptly: BTreeSet<IspId>,
}

/// What was seen of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    /// Since when no packet has been noticed.
    since: Instant,
    /// When the entry would end, as it was seen then.
    end: Instant,
}

impl Returning {
    /// Looks at the flows of these ISPs in a family, the first time at all, then at those that wait. `idle` says for how long a flow
    /// must have been idle to be moved; none if it is to stay, or does not wait any more.
    ///
    /// Entries that the kernel has handed to flow offloading stay, since nobody sees whether they are idle.
    pub fn look(
        &mut self,
        isps: &BTreeMap<IspId, IspMark>,
        family: Family,
        lost: Option<IspMark>,
        idle: impl Fn(&Flow) -> Option<Duration>,
    ) -> Result<Moved, ConntrackError> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let before = std::mem::take(&mut self.waiting);
        let wanted = netfilter_family(family);
        let mut updates = Updates::open()?;
        let mut moved = Moved::default();
        for (id, isp) in isps {
            ConntrackSocket::open()?.dump(mark_attributes(isp.value(), isp.mask()).to_vec(), |payload| {
                let Some(entry) = Entry::parse(payload).filter(|entry| entry.family == wanted) else {
                    return Ok(());
                };
                let known = before.get(&entry.id).copied();
                if entry.is_offloaded
                    || entry.mark & isp.mask() != isp.value()
                    || !(is_first || known.is_some())
                {
                    return Ok(());
                }
                let Some(idle) = entry.flow().and_then(|flow| idle(&flow)) else { return Ok(()) };
                let now = Instant::now();
                let sighting = Sighting::of(known, entry.timeout, now);
                if !sighting.is_idle(idle, now) {
                    self.waiting.insert(entry.id, sighting);
                    return Ok(());
                }
                if idle.is_zero() {
                    moved.abruptly.insert(*id);
                }
                match lost.filter(|_| entry.is_open_tcp) {
                    Some(lost) => {
                        moved.lost += 1;
                        updates.push(&entry, mark_attributes(lost.value(), lost.mask()))
                    }
                    None => updates.delete(&entry),
                }
            })?;
        }
        moved.flows = updates.finish()?;
        Ok(moved)
    }

    /// No flow waits.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Sighting {
    /// An entry that ends in so many seconds, after what was seen of it before.
    fn of(before: Option<Self>, timeout: Option<u32>, now: Instant) -> Self {
        let end = now + Duration::from_secs(timeout.unwrap_or(0).into());
        match before {
            Some(before) if distance(before.end, end) < TOLERANCE => before,
            _ => Self { since: now, end },
        }
    }

    /// Has it been idle for so long? For no time it is always.
    fn is_idle(&self, time: Duration, now: Instant) -> bool {
        time.is_zero() || now.saturating_duration_since(self.since) >= time + BLUR
    }
}

fn distance(one: Instant, other: Instant) -> Duration {
    one.max(other).saturating_duration_since(one.min(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks at an entry every `pause` ms, to which packets come at these times, and returns the first time at which it is taken for
    /// idle. The entry lives `life` seconds after a packet.
    fn idle_at(packets: &[u64], life: u64, pause: u64, phase: u64, idle: Duration) -> u64 {
        let start = Instant::now();
        let mut sighting = None;
        let look = |look| {
            let ms = 10_000 + phase + look * pause;
            let last = packets.iter().copied().filter(|&packet| packet <= ms).max().unwrap_or(0);
            let remaining = (last + life * 1000).saturating_sub(ms) / 1000;
            let now = start + Duration::from_millis(ms);
            let seen = Sighting::of(sighting, u32::try_from(remaining).ok(), now);
            sighting = Some(seen);
            seen.is_idle(idle, now).then_some(ms)
        };
        (0..).find_map(look).unwrap()
    }

    proptest! {
        #[test]
        fn a_flow_is_idle_when_its_last_packet_is_old_enough_and_before_it_is_much_older(
            mut packets in prop::collection::vec(0_u64..200_000, 1..60),
            life in 4_000_u64..5_000,
            pause in 200_u64..5_000,
            phase in 0_u64..1_000,
            idle in 1_u64..40,
        ) {
            packets.sort_unstable();
            let found = idle_at(&packets, life, pause, phase, Duration::from_secs(idle));
            let last = packets.iter().copied().filter(|&packet| packet <= found).max().unwrap_or(0);
            prop_assert!(found - last >= idle * 1000, "{found}: a packet at {last}");
            // The first gap that is long enough, seen from the first look on, is not missed. That a packet came within a second of the
            // one before may be noticed late, so it may have to be twice as long.
            let latest = |from: u64| from.max(10_000 + phase) + 2 * (idle * 1000 + 2_500 + pause) + pause;
            let gap = packets.windows(2).find(|pair| latest(pair[0]) < pair[1]).map(|pair| pair[0]);
            let from = gap.unwrap_or(*packets.last().unwrap());
            prop_assert!(found <= latest(from), "{found}: idle since {from}");
        }
    }

    #[test]
    fn a_flow_that_talks_is_never_idle() {
        for gap in [10, 300, 999, 1000, 1001, 2500] {
            let packets: Vec<u64> = (0..600_000 / gap).map(|number| number * gap).collect();
            let last = *packets.last().unwrap();
            for pause in [250, 1000, 3300] {
                let found = idle_at(&packets, 120, pause, 7, Duration::from_secs(1));
                assert!(found > last, "a packet every {gap} ms, a look every {pause} ms: {found}");
            }
        }
    }

    #[test]
    fn without_a_time_to_be_idle_a_flow_moves_at_first_sight() {
        let now = Instant::now();
        let sighting = Sighting::of(None, Some(100), now);
        assert!(sighting.is_idle(Duration::ZERO, now));
        assert!(!sighting.is_idle(Duration::from_secs(1), now));
    }
}
