//! A daemon finds pins that do not fit: of another shape, of another version, or with another number of flows.
#![cfg(test)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use balance_lab::checks::{HOOKS, SOON, balancing, programs, split};
use balance_lab::{Family, Lab, Stream, ready, wait_until};
use balance_user::config::Attach;
use balance_user::datapath::{Datapath, Maps, Pins};

/// What the pinned maps are to stand in for: a version of long ago.
const OLD: &str = "/sys/fs/bpf/balance/main/v0";

fn pins() -> Pins {
    Pins::of("main")
}

/// The ISPs' names and ids, as the maps have them.
fn ids(lab: &Lab) -> BTreeMap<String, u8> {
    let isps = lab.router().run(|| Maps::open(&pins()).unwrap().isps().unwrap());
    isps.into_iter().map(|(id, entry)| (entry.name(), id.get())).collect()
}

/// The config with the ISPs the other way round: what knows nothing of before would give them other ids.
fn swapped(config: &str) -> String {
    let mut parts: Vec<&str> = config.split("[[").collect();
    parts.swap(1, 2);
    parts.join("[[")
}

fn one_program_everywhere(lab: &Lab, kind: (usize, usize)) {
    for (device, side) in HOOKS {
        // The kernel detaches when it finds the time to.
        let what = format!("one program on {device} {side}");
        wait_until(SOON, &what, || programs(lab, device, side).unwrap() == kind).unwrap();
    }
}

/// Ends a daemon, has `change` do something to the pins on the router, and starts another daemon, while traffic flows;
/// none of which may be lost or move.
fn lose_nothing_when(attach: &str, change: impl FnOnce() + Send) -> Lab {
    let (lab, daemon) = balancing(&format!("attach = \"{attach}\"")).unwrap();
    let before = ids(&lab);
    let streams = [Family::V4, Family::V6].map(|family| Stream::start(lab.lan(), 1_000, 40, family).unwrap());
    let forwarded = |at_least| {
        let count = || ["CABLE", "DSL"].map(|name| lab.isp(name).forwarded().unwrap().to_internet);
        let start = count();
        wait_until(SOON, "traffic by both ISPs", || {
            count().iter().zip(start).all(|(now, start)| now - start >= at_least)
        })
        .unwrap();
    };
    forwarded(100);
    daemon.kill9().unwrap();
    lab.router().run(change);
    forwarded(100);
    lab.write_config(&swapped(&lab.read_config().unwrap())).unwrap();
    let daemon = lab.start_up().unwrap();
    forwarded(100);
    for stream in streams {
        let report = stream.stop().unwrap();
        assert!(report.sent > 500 && report.lost == 0 && report.moved == 0, "{report:?}");
    }
    assert_eq!(ids(&lab), before);
    assert_eq!(split(&lab, 400, Family::V4).unwrap().len(), 2);
    one_program_everywhere(&lab, if attach == "tcx" { (1, 0) } else { (0, 1) });
    daemon.kill9().unwrap();
    lab
}

/// Pins another map in the place of this one.
fn replace(name: &str, other: &str) {
    let path = pins().map(name);
    fs::remove_file(&path).unwrap();
    MapData::from_pin(pins().map(other)).unwrap().pin(path).unwrap();
}

fn id_of(path: impl AsRef<Path>) -> u32 {
    MapData::from_pin(path).unwrap().info().unwrap().id()
}

/// The ids of the links to devices, by their pins' names.
fn link_ids() -> BTreeMap<OsString, u32> {
    let files = fs::read_dir(pins().links()).unwrap().map(|entry| entry.unwrap());
    // Those to the cgroup end when others have taken their places.
    let files = files.filter(|file| !file.file_name().to_string_lossy().starts_with("local_"));
    let id = |path| FdLink::from(PinnedLink::from_pin(path).unwrap()).info().unwrap().id();
    files.map(|file| (file.file_name(), id(file.path()))).collect()
}

/// The ids of the maps, by their pins.
fn map_ids() -> BTreeMap<PathBuf, u32> {
    let files = fs::read_dir(pins().folder()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), id_of(path))).collect()
}

#[test]
fn maps_of_another_shape_are_replaced_and_nothing_else() {
    if !ready() {
        return;
    }
    for attach in ["tcx", "clsact"] {
        let mut kept = BTreeMap::new();
        let lab = lose_nothing_when(attach, || {
            kept = map_ids();
            for (name, other) in
                [("BUCKETS", "DEVICES"), ("COUNTERS", "LOCAL"), ("SEEN", "SETTINGS"), ("ACTIVE", "VERDICTS")]
            {
                replace(name, other);
                kept.remove(&pins().map(name)).unwrap();
            }
            // Of a daemon that had more maps.
            MapData::from_pin(pins().map("ACTIVE")).unwrap().pin(pins().map("MORE")).unwrap();
        });
        let now = lab.router().run(map_ids);
        assert!(!now.contains_key(&pins().map("MORE")));
        for (path, id) in kept {
            assert_eq!(now.get(&path), Some(&id), "{}", path.display());
        }
    }
}

#[test]
fn another_version_is_taken_over_from_without_losing_a_packet() {
    if !ready() {
        return;
    }
    for attach in ["tcx", "clsact"] {
        let (mut memory, mut links) = (0, BTreeMap::new());
        let lab = lose_nothing_when(attach, || {
            memory = id_of(pins().map("ISPS"));
            links = link_ids();
            fs::rename(pins().folder(), OLD).unwrap();
        });
        lab.router().run(|| {
            assert!(!Path::new(OLD).exists());
            assert_eq!(id_of(pins().map("ISPS")), memory);
            assert_eq!(link_ids(), links, "the programs were replaced in place");
        });
    }
}

#[test]
fn what_another_version_remembers_in_another_shape_is_forgotten() {
    if !ready() {
        return;
    }
    let (lab, daemon) = balancing("").unwrap();
    daemon.kill9().unwrap();
    lab.router().run(|| {
        replace("ISPS", "DEVICES");
        fs::rename(pins().folder(), OLD).unwrap();
    });
    let _daemon = lab.start_up().unwrap();
    assert_eq!(ids(&lab), [("CABLE".to_owned(), 1), ("DSL".to_owned(), 2)].into());
    assert_eq!(split(&lab, 400, Family::V6).unwrap().len(), 2);
    lab.router().run(|| assert!(!Path::new(OLD).exists()));
    one_program_everywhere(&lab, (1, 0));
}

#[test]
fn maps_of_another_size_than_they_will_be_loaded_with_are_unpinned() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.router().run(|| {
        drop(Datapath::load(pins(), Attach::Auto, "/run/qdiscs".into(), 1024).unwrap());
        let all = map_ids();
        let size = |name| MapData::from_pin(pins().map(name)).unwrap().info().unwrap().max_entries();
        let mut sizes =
            ["FLOWS_V4", "FLOWS_V6", "INDEX_V4", "INDEX_V6", "SEEN"].map(|name| (name, size(name)));
        assert_eq!(
            sizes.map(|(_, size)| size),
            [2560, 2560, 128, 128, 4096],
            "room for 1024 flows of two directions, and more; 32 of them in a row"
        );
        pins().prepare(&[&sizes[..], &[("NO_SUCH_MAP", 1)]].concat()).unwrap();
        assert_eq!(map_ids(), all);
        sizes[0].1 *= 2;
        pins().prepare(&sizes).unwrap();
        let left: Vec<_> = all.keys().filter(|path| path.exists()).collect();
        assert_eq!(left.len(), all.len() - 1);
        assert!(!pins().map("FLOWS_V4").exists());
    });
}
