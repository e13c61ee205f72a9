//! What followed from the changes of ISPs: buckets that moved and flows that were cut, until the change is announced.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use balance_common::layout::BucketTable;
use balance_common::{Family, IspId, PolicyId};

use crate::announce::event::{Change, Consequence, Event, Time};
use crate::conntrack::Cut;

/// What happened longer ago has nothing to do with a change. The two families of an ISP fail one after the other, and what
/// follows from the first is part of it.
const RECENT: Duration = Duration::from_secs(10);

type Tables = BTreeMap<(PolicyId, Family), BucketTable>;

/// Consequences and changes that have not been brought together yet.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    recent: BTreeMap<IspId, (Instant, Consequence)>,
    changes: Vec<Change>,
}

impl Consequences {
    /// The selection tables are others now. An ISP that has lost all of its buckets of a table has fallen out, one that had
    /// none has come in; others only get more or less by it.
    pub(super) fn moved(&mut self, before: &Tables, after: &Tables, isps: &[IspId], now: Instant) {
        for &isp in isps {
            let mut consequence = Consequence::default();
            for (key, table) in after {
                let had = before.get(key).map_or(0, |table| count(table, isp));
                match (had, count(table, isp)) {
                    (1.., 0) => consequence.buckets_lost += had,
                    (0, gained) => consequence.buckets_gained += gained,
                    _ => {}
                }
            }
            self.add(isp, consequence, now);
        }
    }

    /// Flows of an ISP were cut loose.
    pub(super) fn cut(&mut self, isp: IspId, cut: Cut, now: Instant) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let consequence = Consequence {
            connections_reset: number(cut.connections),
            flows_cut: number(cut.flows),
            ..Consequence::default()
        };
        self.add(isp, consequence, now);
    }

    /// An ISP has changed its state.
    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The changes with what followed, ready to be announced.
    pub(super) fn events(
        &mut self,
        instance: &str,
        isp_named: impl Fn(&str) -> Option<IspId>,
        now: Instant,
    ) -> Vec<Event> {
        self.recent.retain(|_, (at, _)| now.saturating_duration_since(*at) < RECENT);
        let time = Time::now();
        let changes = std::mem::take(&mut self.changes).into_iter();
        let event = |change: Change| {
            let recent = isp_named(&change.isp).and_then(|isp| self.recent.remove(&isp));
            let recent = recent.map(|(_, consequence)| consequence).unwrap_or_default();
            // Of an ISP that is back, what it lost before is no consequence of that.
            let consequence = if change.is_way_back() {
                Consequence { buckets_gained: recent.buckets_gained, ..Consequence::default() }
            } else {
                Consequence { buckets_gained: 0, ..recent }
            };
            Event { time, instance: instance.to_owned(), change, consequence }
        };
        changes.map(event).collect()
    }

    fn add(&mut self, isp: IspId, consequence: Consequence, now: Instant) {
        if consequence != Consequence::default() {
            let recent =
                self.recent.remove(&isp).filter(|(at, _)| now.saturating_duration_since(*at) < RECENT);
            let sum = recent.map_or(consequence, |(_, before)| before.and(consequence));
            self.recent.insert(isp, (now, sum));
        }
    }
}

fn count(table: &BucketTable, isp: IspId) -> u64 {
    table.iter().map(|&owner| u64::from(owner == isp.get())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isp(number: u8) -> IspId {
        IspId::new(number).unwrap()
    }

    /// Tables of both families in which these have so many buckets.
    fn tables(v4: &[(u8, usize)], v6: &[(u8, usize)]) -> Tables {
        let table = |owners: &[(u8, usize)]| {
            let mut table: BucketTable = [0; _];
            let all = owners.iter().flat_map(|&(owner, count)| std::iter::repeat_n(owner, count));
            table.iter_mut().zip(all).for_each(|(bucket, owner)| *bucket = owner);
            table
        };
        [(Family::V4, table(v4)), (Family::V6, table(v6))]
            .map(|(family, table)| ((PolicyId::DEFAULT, family), table))
            .into()
    }

    fn changed(name: &str, state: &str) -> Change {
        Change { isp: name.to_owned(), state: state.to_owned(), ..Change::default() }
    }

    /// `ISP1` is 1, and so on.
    fn named(name: &str) -> Option<IspId> {
        IspId::new(name.strip_prefix("ISP")?.parse().ok()?)
    }

    fn said(consequences: &mut Consequences, now: Instant) -> Vec<String> {
        consequences.events("main", named, now).iter().map(|event| event.consequence.to_string()).collect()
    }

    #[test]
    fn what_follows_in_both_families_is_told_with_the_isp_that_it_is_about() {
        let now = Instant::now();
        let mut consequences = Consequences::default();
        let all = tables(&[(1, 3072), (2, 1024)], &[(1, 2048), (2, 2048)]);
        let half = tables(&[(2, 4096)], &[(1, 2048), (2, 2048)]);
        consequences.moved(&all, &half, &[isp(1), isp(2)], now);
        consequences.cut(isp(1), Cut { connections: 2, flows: 3 }, now);
        assert_eq!(said(&mut consequences, now), [""; 0], "nothing is announced yet");
        let none = tables(&[(2, 4096)], &[(2, 4096)]);
        let later = now + Duration::from_secs(2);
        consequences.moved(&half, &none, &[isp(1), isp(2)], later);
        consequences.cut(isp(1), Cut { connections: 1, flows: 0 }, later);
        consequences.change(changed("ISP1", "down"));
        consequences.change(changed("ISP2", "down"));
        assert_eq!(
            said(&mut consequences, later),
            ["5120 buckets moved away, 3 connections reset, 3 flows cut", "nothing moved"]
        );
        consequences.moved(&none, &all, &[isp(1), isp(2)], later);
        consequences.cut(isp(1), Cut { connections: 0, flows: 7 }, later);
        consequences.change(changed("ISP1", "up"));
        assert_eq!(said(&mut consequences, later), ["5120 buckets moved here"]);
    }

    #[test]
    fn what_happened_long_ago_is_not_told() {
        let now = Instant::now();
        let mut consequences = Consequences::default();
        consequences.cut(isp(1), Cut { connections: 2, flows: 3 }, now);
        consequences.change(changed("ISP1", "down"));
        assert_eq!(said(&mut consequences, now + RECENT), ["nothing moved"]);
        consequences.cut(isp(1), Cut { connections: 2, flows: 3 }, now);
        consequences.cut(isp(1), Cut { connections: 0, flows: 1 }, now + RECENT);
        consequences.change(changed("ISP1", "down"));
        assert_eq!(said(&mut consequences, now + RECENT), ["1 flow cut"]);
    }
}
