//! Kernel settings: set, and put back as they were.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use balance_user::core::plan::Sysctl;
use balance_user::sysctl::{Saved, liberal_conntrack, plan};

use crate::netns::Netns;

/// A namespace with two ISPs and a LAN, as a host that listens to router advertisements.
fn host() -> Option<Netns> {
    let netns = Netns::new()?;
    for (device, peer) in [("isp1.5", "p1"), ("isp2", "p2"), ("lan0", "p3")] {
        netns.join(device, &netns, peer);
    }
    netns.run(|| {
        set("net/ipv4/conf/all/rp_filter", "0");
        set("net/ipv4/conf/isp1.5/rp_filter", "1");
        set("net/ipv6/conf/all/forwarding", "0");
        // One device was made a router by hand.
        set("net/ipv6/conf/p2/forwarding", "1");
        set("net/ipv6/conf/isp1.5/accept_ra", "1");
        set("net/ipv6/conf/isp2/accept_ra", "0");
    });
    Some(netns)
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

fn set(key: &str, value: &str) {
    fs::write(path(key), value).unwrap();
}

fn get(key: &str) -> String {
    fs::read_to_string(path(key)).unwrap().trim().to_owned()
}

/// All settings of the namespace, but for numbers that change by themselves.
fn all() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut values = BTreeMap::new();
    let mut folders = vec![path("net")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if let Ok(value) = fs::read(entry.path()) {
                values.insert(entry.path(), value);
            }
        }
    }
    values.retain(|path, _| !path.ends_with("nf_conntrack_count") && !path.ends_with("stable_secret"));
    values
}

fn planned(saved: &Saved) -> Vec<Sysctl> {
    let isps = ["isp1.5", "isp2", "gone0"];
    plan(&isps, &["lan0"], &saved.facts(&isps))
}

fn ensure(file: &Path) -> Vec<Sysctl> {
    let mut saved = Saved::load(file).unwrap();
    let plan = planned(&saved);
    let errors = saved.ensure(&plan);
    assert!(errors.is_empty(), "{errors:?}");
    plan
}

fn restore(file: &Path) {
    let errors = Saved::load(file).unwrap().restore();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!file.exists());
}

#[test]
fn everything_is_put_back_also_after_crashes() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made/on/demand.json");
    netns.run(|| {
        let before = all();
        let first = ensure(&file);
        for (key, value) in [
            ("net/ipv4/conf/isp1.5/rp_filter", "2"),
            ("net/ipv4/conf/isp2/rp_filter", "0"),
            ("net/ipv4/conf/lan0/forwarding", "1"),
            ("net/ipv4/ip_forward", &String::from_utf8_lossy(&before[&path("net/ipv4/ip_forward")])),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/isp1.5/accept_ra", "2"),
            ("net/ipv6/conf/isp2/accept_ra", "0"),
        ] {
            assert_eq!(get(key), value.trim(), "{key}");
        }
        let set_up = all();
        // Each time as a new daemon that knows nothing but the file.
        for _ in 0..2 {
            assert_eq!(ensure(&file), first, "the plan does not depend on what was set");
            assert_eq!(all(), set_up);
        }
        restore(&file);
        assert_eq!(all(), before);
        restore(&file);
        assert_eq!(all(), before, "nothing to put back is fine");
    });
}

#[test]
fn conntrack_is_liberal_until_it_is_put_back() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sysctl.json");
    let key = "net/netfilter/nf_conntrack_tcp_be_liberal";
    netns.run(|| {
        let before = all();
        assert_eq!(get(key), "0");
        for _ in 0..2 {
            assert!(Saved::load(&file).unwrap().ensure(&[liberal_conntrack()]).is_empty());
            assert_eq!(get(key), "1");
        }
        restore(&file);
        assert_eq!(all(), before);
    });
}

#[test]
fn a_setting_that_appears_later_is_set_then() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sysctl.json");
    let key = "net/ipv4/conf/late0/forwarding";
    let wanted = [Sysctl { key: key.to_owned(), value: "1".to_owned() }];
    let mut saved = Saved::load(&file).unwrap();
    netns.run(|| assert!(saved.ensure(&wanted).is_empty()));
    netns.join("late0", &netns, "p4");
    netns.run(|| {
        set(key, "0");
        let before = all();
        assert!(saved.ensure(&wanted).is_empty());
        assert_eq!(get(key), "1");
        restore(&file);
        assert_eq!(all(), before);
    });
}

#[test]
fn what_somebody_else_changed_stays() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sysctl.json");
    netns.run(|| {
        let before = all();
        ensure(&file);
        let mut expected = before;
        for (key, value) in [("net/ipv4/conf/isp1.5/rp_filter", "0"), ("net/ipv6/conf/p3/forwarding", "2")] {
            set(key, value);
            expected.insert(path(key), format!("{value}\n").into_bytes());
        }
        restore(&file);
        assert_eq!(all(), expected);
    });
}

#[test]
fn the_first_original_counts_though_somebody_interfered() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sysctl.json");
    netns.run(|| {
        let before = all();
        ensure(&file);
        set("net/ipv4/conf/lan0/forwarding", "0");
        set("net/ipv6/conf/all/forwarding", "0");
        ensure(&file);
        assert_eq!(get("net/ipv4/conf/lan0/forwarding"), "1", "needed, so set again");
        restore(&file);
        assert_eq!(all(), before);
    });
}

#[test]
fn what_the_plan_no_longer_has_is_put_back_at_once() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sysctl.json");
    netns.run(|| {
        let before = all();
        ensure(&file);
        let mut saved = Saved::load(&file).unwrap();
        let smaller = plan(&["isp2"], &["lan0"], &saved.facts(&["isp2"]));
        assert!(saved.ensure(&smaller).is_empty());
        assert_eq!(get("net/ipv4/conf/isp1.5/rp_filter"), "1");
        assert_eq!(get("net/ipv6/conf/isp1.5/accept_ra"), "1");
        assert_eq!(get("net/ipv6/conf/all/forwarding"), "1", "still needed");
        restore(&file);
        assert_eq!(all(), before);
    });
}

#[test]
fn nothing_is_changed_that_cannot_be_remembered() {
    let Some(netns) = host() else { return };
    let folder = tempfile::tempdir().unwrap();
    netns.run(|| {
        let before = all();
        let mut saved = Saved::load(&folder.path().join("sysctl.json")).unwrap();
        let plan = planned(&saved);
        fs::create_dir(folder.path().join("sysctl.new")).unwrap();
        assert_eq!(saved.ensure(&plan).len(), 1);
        assert_eq!(saved.ensure(&plan).len(), 1, "nor at the second attempt");
        assert_eq!(all(), before);
    });
}
