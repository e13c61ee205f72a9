//! Weights are changed in the file, and nothing else is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use balance_user::config::Config;
use balance_user::config::save::{SaveError, save_weight, set_weight};

use crate::{MINIMAL, SAMPLE, parse};

#[test]
fn set_weight_changes_the_number_and_nothing_else() {
    let changed = set_weight(SAMPLE, "CABLE", 17).unwrap();
    assert_eq!(changed, SAMPLE.replace("weight = 3  ", "weight = 17  "));
    assert_eq!(parse(&changed).unwrap().isps[0].weight, 17);
}

#[test]
fn set_weight_adds_the_key_where_there_is_none() {
    for (before, after) in [
        (
            "[[isp]]\n  name = \"A\" # c\n  device = \"a\"\n",
            "[[isp]]\n  name = \"A\" # c\n  weight = 5\n  device = \"a\"\n",
        ),
        ("[[isp]]\r\ndevice='a'\r\nname='A'\r\n", "[[isp]]\r\ndevice='a'\r\nname='A'\r\nweight = 5\r\n"),
        ("[[isp]]\ndevice='a'\nname='A'", "[[isp]]\ndevice='a'\nname='A'\nweight = 5"),
        ("isp=[{name='A',device='a'}]", "isp=[{name='A', weight = 5,device='a'}]"),
        ("isp=[{device='a', name='A' }]", "isp=[{device='a', name='A', weight = 5 }]"),
        (
            "[[isp]]\nname='A'\ndevice='a'\n[isp.monitor]\nquorum=1\n",
            "[[isp]]\nname='A'\nweight = 5\ndevice='a'\n[isp.monitor]\nquorum=1\n",
        ),
    ] {
        assert_eq!(set_weight(before, "A", 5).unwrap(), after);
        assert_eq!(parse(after).unwrap().isps[0].weight, 5);
    }
}

#[test]
fn set_weight_finds_the_isp_as_people_write_it_or_says_there_is_none() {
    assert_eq!(set_weight(MINIMAL, "a", 2).unwrap(), set_weight(MINIMAL, "A", 2).unwrap());
    assert!(matches!(set_weight(MINIMAL, "B", 2), Err(SaveError::NoSuchIsp { .. })));
    assert!(matches!(set_weight("", "A", 2), Err(SaveError::NoSuchIsp { .. })));
    assert!(matches!(set_weight("isp = 1", "A", 2), Err(SaveError::NoSuchIsp { .. })));
    assert!(matches!(set_weight("isp = [", "A", 2), Err(SaveError::Config(_))));
    for weight in [0, 1001, u16::MAX] {
        assert!(matches!(set_weight(MINIMAL, "A", weight), Err(SaveError::Weight)));
    }
}

#[test]
fn saving_keeps_mode_owner_and_link_and_leaves_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real.toml");
    let link = folder.path().join("balance.toml");
    fs::write(&real, SAMPLE).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give files away; for others the owner is kept anyhow.
    let given = std::os::unix::fs::chown(&real, Some(12), Some(34)).is_ok();
    symlink("real.toml", &link).unwrap();

    save_weight(&link, "DSL", 9).unwrap();

    assert_eq!(fs::read_to_string(&real).unwrap(), set_weight(SAMPLE, "DSL", 9).unwrap());
    let metadata = fs::metadata(&real).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert!(!given || (metadata.uid(), metadata.gid()) == (12, 34));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_failed_save_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balance.toml");
    fs::write(&path, SAMPLE).unwrap();
    let error = save_weight(&path, "LTE", 9).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: there is no ISP named LTE", path.display()));
    assert_eq!(fs::read_to_string(&path).unwrap(), SAMPLE);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(save_weight(&folder.path().join("none"), "DSL", 9).is_err());
}

#[test]
fn saves_at_the_same_time_do_not_undo_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balance.toml");
    fs::write(&path, SAMPLE).unwrap();
    std::thread::scope(|scope| {
        for isp in ["CABLE", "DSL"] {
            let path = &path;
            scope.spawn(move || (1..=50).for_each(|weight| save_weight(path, isp, weight * 20).unwrap()));
        }
    });
    let weights: Vec<_> = Config::load(&path).unwrap().isps.iter().map(|isp| isp.weight).collect();
    assert_eq!(weights, [1000, 1000]);
}
