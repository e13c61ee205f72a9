//! ISPs that carry enough get no new flows as long as there is another.

use jiff::civil::{Date, date};

use super::*;
use crate::config::policy::MemberConfig;
use crate::config::{Band, MeteredConfig, QuotaAction, QuotaConfig, QuotaRule};
use crate::core::{Reading, Record, Today};

const NOVEMBER: Date = date(2026, 11, 23);
const QUOTA: u64 = 1_000_000;

/// So many ISPs, each with a quota and a rate.
fn metered(count: usize) -> Config {
    let mut config = config(isps(count));
    let quota =
        QuotaConfig { limit: QUOTA, rule: QuotaRule::default(), action: QuotaAction::Demote, warn: Some(80) };
    let spill_over = Some(Band { enter: 8_000_000, leave: 4_000_000 });
    for isp in &mut config.isps {
        isp.metered = MeteredConfig { quota: Some(quota), spill_over };
    }
    config
}

fn world(config: Config) -> World {
    let count = config.isps.len();
    let mut world = World::new(config, Network::with_isps(count));
    (0..count).for_each(|place| world.carried(place, 0, NOVEMBER));
    world
}

impl World {
    /// The counters of an ISP have come so far.
    fn carried(&mut self, place: usize, bytes: u64, date: Date) {
        let isp = self.id(place);
        let reading = Reading { maps: 7, isp: isp.get(), download: bytes, upload: 0 };
        let today = Today { date, set: false };
        self.event(Event::Volume { readings: [(isp, reading)].into(), today });
    }

    /// For 20 s they carry so many Mbit/s; `carried` is how far their counters have come.
    fn rates<const N: usize>(&mut self, carried: &mut [u64; N], mbits: [u64; N]) {
        for _ in 0..40 {
            self.wait(ms(500));
            for (place, (carried, mbits)) in carried.iter_mut().zip(mbits).enumerate() {
                *carried += mbits * 1_000_000 / 16;
                self.carried(place, *carried, NOVEMBER);
            }
        }
    }

    fn told(&mut self) -> Vec<String> {
        let told = |effect: &Effect| match effect {
            Effect::AnnounceQuota(change) => Some(change.headline()),
            _ => None,
        };
        let found = self.effects.iter().filter_map(told).collect();
        self.effects.retain(|effect| told(effect).is_none());
        found
    }
}

/// Only rates matter.
fn without_quotas(mut config: Config) -> Config {
    for isp in &mut config.isps {
        isp.metered.quota = None;
    }
    config
}

#[test]
fn a_used_up_quota_moves_the_isps_own_buckets_alone_until_there_is_quota_again() {
    let mut world = world(metered(3));
    let before = world.table(Family::V4);
    world.carried(0, QUOTA, NOVEMBER);
    assert_eq!(world.told(), ["CABLE has used up its quota"]);
    let without = world.table(Family::V4);
    assert_eq!(world.shares(Family::V4)[0], 0);
    let own = world.id(0).get();
    assert!(before.iter().zip(&without).all(|(was, is)| was == is || *was == own));
    assert_eq!(world.deleted(), [], "live flows stay");
    assert_eq!(world.announced().iter().filter(|text| text.contains("down")).count(), 0);
    assert!(world.reason(0).contains("quota of 1 MB used up"), "{}", world.reason(0));
    world.carried(0, QUOTA, date(2026, 12, 1));
    assert_eq!(world.table(Family::V4), before);
    assert_eq!(world.told(), ["CABLE has quota again"]);
}

#[test]
fn one_that_has_used_up_its_quota_comes_behind_all_other_tiers_but_before_nothing() {
    let mut config = metered(3);
    config.isps[1].tier = 2;
    config.isps[2].tier = 3;
    let mut world = world(config);
    world.carried(0, 2 * QUOTA, NOVEMBER);
    assert_eq!(world.shares(Family::V4), [0, 4096, 0]);
    world.carrier(1, false);
    assert_eq!(world.shares(Family::V4), [0, 0, 4096]);
    world.carrier(2, false);
    assert_eq!(world.shares(Family::V4), [4096, 0, 0]);
    assert_eq!(world.shares(Family::V6), [4096, 0, 0]);
    world.carrier(2, true);
    world.wait(A_WHILE);
    assert_eq!(world.shares(Family::V4), [0, 0, 4096]);
    // All of them: as if none had any.
    world.carrier(1, true);
    world.wait(A_WHILE);
    world.carried(1, QUOTA, NOVEMBER);
    world.carried(2, QUOTA, NOVEMBER);
    assert_eq!(world.shares(Family::V4), [4096, 0, 0]);
}

#[test]
fn a_policy_of_one_isp_keeps_it() {
    let mut config = metered(2);
    let members = vec![MemberConfig { isp: "CABLE".to_owned(), weight: None, tier: None }];
    config.policies.push(PolicyConfig { name: "ONLY".to_owned(), members, ..PolicyConfig::default() });
    let mut world = world(config);
    world.carried(0, QUOTA, NOVEMBER);
    let table = world.plan().maps.tables[&(PolicyId::new(1).unwrap(), Family::V4)];
    assert_eq!(count(&table, world.id(0)), 4096);
}

#[test]
fn a_full_tier_spills_over_to_the_next_and_back() {
    let mut config = without_quotas(metered(3));
    config.isps[2].tier = 2;
    let mut world = world(config);
    let before = world.table(Family::V4);
    let mut carried = [0; 3];
    for (rates, shares, why) in [
        ([10, 1, 1], [0, 4096, 0], "the other of its tier"),
        ([10, 10, 1], [0, 0, 4096], "the next tier"),
        ([10, 10, 10], [2048, 2048, 0], "all are full: as if none were"),
        ([6, 10, 10], [2048, 2048, 0], "not under the lower limit"),
        ([1, 10, 10], [4096, 0, 0], "the only one that is not full"),
        ([1, 1, 10], [2048, 2048, 0], "its tier again"),
    ] {
        world.rates(&mut carried, rates);
        assert_eq!(world.shares(Family::V4), shares, "{why}");
    }
    assert_eq!(world.table(Family::V4), before);
    assert_eq!(world.deleted(), []);
}

#[test]
fn in_failover_mode_the_next_best_gets_what_spills_over() {
    let mut config = without_quotas(metered(3));
    config.mode = Mode::Failover;
    let mut world = world(config);
    assert_eq!(world.shares(Family::V4), [4096, 0, 0]);
    world.rates(&mut [0; 3], [10, 1, 1]);
    assert_eq!(world.shares(Family::V4), [0, 4096, 0]);
}

#[test]
fn what_costs_is_worse_than_what_is_full() {
    let mut world = world(metered(2));
    world.carried(0, QUOTA, NOVEMBER);
    world.reload(|config| config.isps[1].metered.quota = None);
    world.rates(&mut [QUOTA, 0], [0, 10]);
    assert_eq!(world.shares(Family::V4), [0, 4096], "full, but it costs nothing");
    assert!(world.reason(1).contains("full: over 8 Mbit/s"), "{}", world.reason(1));
}

#[test]
fn a_new_daemon_plans_the_same_by_what_was_kept_and_tells_nothing_again() {
    let mut world = world(metered(3));
    world.carried(0, QUOTA, NOVEMBER);
    world.reload(|config| config.isps[1].metered.quota = None);
    world.rates(&mut [QUOTA, 0, 0], [0, 10, 0]);
    let before = world.plan();
    // As it is written and read.
    let json = serde_json::to_string(&world.core.meters()).unwrap();
    let records: BTreeMap<String, Record> = serde_json::from_str(&json).unwrap();
    world.told();
    world.core = world.restarted();
    world.core.restore_meters(&records);
    assert_eq!(world.plan(), before);
    world.advance();
    assert_eq!((world.plan(), world.told()), (before, vec![]));
}

#[test]
fn a_quota_that_comes_with_a_reload_counts_from_then_on_and_one_that_goes_is_void() {
    let mut world = world(without_quotas(metered(2)));
    world.carried(0, 5 * QUOTA, NOVEMBER);
    let with = metered(2);
    world.event(Event::Reload(Box::new(with)));
    world.carried(0, 5 * QUOTA, NOVEMBER);
    assert_eq!(world.core.quality(world.now)["CABLE"].quota.as_ref().unwrap().used, 0);
    world.carried(0, 6 * QUOTA, NOVEMBER);
    assert_eq!(world.shares(Family::V4), [0, 4096]);
    world.reload(|config| *config = without_quotas(config.clone()));
    assert_eq!(world.shares(Family::V4), [2048, 2048]);
    assert_eq!(world.core.quality(world.now)["CABLE"].quota, None);
}
