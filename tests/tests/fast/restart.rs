//! The daemon dies, is started again, or is replaced by one with other maps, while flows go fast.

use std::fs;

use aya::maps::MapData;
use balance_lab::{Lab, Stream, StreamReport, wait_until};

use crate::support::{FAMILIES, SOON, config, fast_ways, lab, pins, with_each};

/// What the pins of the flow cache and its company are replaced by, which has another shape.
const REPLACED: [(&str, &str); 9] = [
    ("INDEX_V4", "SEEN"),
    ("INDEX_V6", "DEVICES"),
    ("FLOWS_V4", "DEVICES"),
    ("FLOWS_V6", "SEEN"),
    ("SNAPSHOTS_V4", "VERDICTS"),
    ("SNAPSHOTS_V6", "ACTIVE"),
    ("PATHS", "COUNTERS"),
    ("CONFIRMATIONS", "LOCAL"),
    ("XDP_TARGETS", "SETTINGS"),
];

/// The id and the size of a pinned map.
fn pinned(lab: &Lab, name: &str) -> (u32, u32) {
    lab.router().run(|| {
        let info = MapData::from_pin(pins().map(name)).unwrap().info().unwrap();
        (info.id(), info.max_entries())
    })
}

/// Waits until more packets have gone fast both ways by both ISPs.
fn goes_on_fast(lab: &Lab) {
    let all = || -> Vec<u64> { lab.isps().iter().flat_map(|isp| fast_ways(lab, isp)).collect() };
    let before = all();
    let grown = || all().iter().zip(&before).all(|(now, before)| *now >= before + 200);
    wait_until(SOON, "packets by the fast path", grown).unwrap();
}

/// Runs flows of both families, by both ISPs, meanwhile; none may lose a packet or move.
fn lose_nothing(lab: &Lab, meanwhile: impl FnOnce()) {
    let streams = FAMILIES.map(|family| Stream::start(lab.lan(), 1_000, 40, family).unwrap());
    goes_on_fast(lab);
    meanwhile();
    goes_on_fast(lab);
    for stream in streams {
        let report = stream.stop().unwrap();
        let sent = report.sent;
        assert!(sent > 1_000, "{report:?}");
        assert_eq!(report, StreamReport { sent, received: sent, lost: 0, moved: 0 });
    }
}

#[test]
fn a_kill_and_a_restart_lose_no_packet_and_leave_the_flows_fast() {
    with_each(|acceleration| {
        let (lab, daemon) = lab(acceleration);
        let before = pinned(&lab, "FLOWS_V4");
        lose_nothing(&lab, || {
            daemon.kill9().unwrap();
            goes_on_fast(&lab);
            let daemon = lab.start_up().unwrap();
            goes_on_fast(&lab);
            daemon.terminate().unwrap();
            goes_on_fast(&lab);
            let _daemon = lab.start_up().unwrap();
            goes_on_fast(&lab);
        });
        assert_eq!(pinned(&lab, "FLOWS_V4"), before, "what fits is kept");
    });
}

#[test]
fn maps_of_another_shape_are_replaced_without_losing_a_packet() {
    with_each(|acceleration| {
        for attach in ["tcx", "clsact"] {
            let lab = Lab::new().unwrap();
            let config = format!("attach = \"{attach}\"\n{}", config(&lab, acceleration, ""));
            lab.write_config(&config).unwrap();
            let daemon = lab.start_up().unwrap();
            let before = REPLACED.map(|(name, _)| pinned(&lab, name));
            let mut daemon = Some(daemon);
            lose_nothing(&lab, || {
                daemon.take().unwrap().kill9().unwrap();
                lab.router().run(|| {
                    for (name, other) in REPLACED {
                        let path = pins().map(name);
                        fs::remove_file(&path).unwrap();
                        MapData::from_pin(pins().map(other)).unwrap().pin(path).unwrap();
                    }
                });
                daemon = Some(lab.start_up().unwrap());
            });
            for ((name, other), (id, size)) in REPLACED.into_iter().zip(before) {
                let now = pinned(&lab, name);
                assert!(now.0 != id && now.0 != pinned(&lab, other).0 && now.1 == size, "{name}");
            }
        }
    });
}

#[test]
fn a_flow_cache_of_another_size_is_taken_without_losing_a_packet() {
    with_each(|acceleration| {
        let (lab, daemon) = lab(acceleration);
        let mut daemon = Some(daemon);
        let before = ["FLOWS_V4", "FLOWS_V6", "SEEN", "PATHS"].map(|name| pinned(&lab, name));
        lose_nothing(&lab, || {
            daemon.take().unwrap().kill9().unwrap();
            lab.write_config(&config(&lab, acceleration, "flows = 2048")).unwrap();
            daemon = Some(lab.start_up().unwrap());
        });
        let now = ["FLOWS_V4", "FLOWS_V6", "SEEN", "PATHS"].map(|name| pinned(&lab, name));
        let sized = before[..3].iter().zip(&now);
        assert!(
            sized.clone().all(|(before, now)| now.0 != before.0 && now.1 < before.1),
            "{before:?} {now:?}"
        );
        assert_eq!(now[3], before[3], "what fits is kept");
    });
}
