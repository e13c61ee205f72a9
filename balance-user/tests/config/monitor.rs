//! `[monitor]`: its keys, foolsm's names for them, and its profiles.

use std::time::Duration;

use balance_common::Family;
use balance_user::config::{Band, Limits, MonitorConfig, Profile};

use super::{MINIMAL, parse};

#[test]
fn every_key_of_quality_and_damping_is_read_by_either_name() {
    let monitor = |keys: &str| parse(&format!("{MINIMAL}[monitor]\n{keys}")).unwrap().isps[0].monitor.clone();
    let second = Duration::from_secs(1);
    let ours = monitor(
        r#"
        interval = "2s"
        timeout = "500ms"
        down_after = 7
        up_after = "10s"
        vouch = "0s"
        long_down_after = "2m"
        flap_half_life = "90s"
        flap_suppress = 3000
        flap_reuse = 800
        degraded_loss = "15%"
        restored_loss = "5%"
        degraded_latency = "400ms"
        degraded_jitter = "100ms"
        restored_jitter = "20ms"
        degraded_after = "0s"
        restored_after = "1m"
        "#,
    );
    let expected = MonitorConfig {
        interval: 2 * second,
        timeout: second / 2,
        down_after: 7,
        up_after: 10 * second,
        vouch: Duration::ZERO,
        long_down_after: 120 * second,
        flap_half_life: 90 * second,
        flap_suppress: 3000,
        flap_reuse: 800,
        limits: Limits {
            loss: Some(Band { enter: 150, leave: 50 }),
            latency: Some(Band { enter: second * 2 / 5, leave: second / 5 }),
            jitter: Some(Band { enter: second / 10, leave: second / 50 }),
            degraded_after: Duration::ZERO,
            restored_after: 60 * second,
        },
        ..MonitorConfig::default()
    };
    assert_eq!(ours, expected);

    let foolsm = monitor(
        "interval_ms = 2000\ntimeout_ms = 500\nmax_successive_pkts_lost = 7\nmin_successive_pkts_rcvd = 5\n\
         long_down_time = 120\nmax_packet_loss = 15\nmin_packet_loss = 5\nflap_window = \"450s\"\n",
    );
    assert_eq!((foolsm.interval, foolsm.timeout, foolsm.down_after), (2 * second, second / 2, 7));
    assert_eq!((foolsm.up_after, foolsm.long_down_after), (10 * second, 120 * second));
    assert_eq!((foolsm.limits.loss, foolsm.flap_half_life), (expected.limits.loss, 90 * second));
}

#[test]
fn limits_can_be_off_and_the_lower_one_is_half_the_upper_one() {
    let limits = |keys: &str| parse(&format!("{MINIMAL}[monitor]\n{keys}")).unwrap().isps[0].monitor.limits;
    assert_eq!(limits("").loss, Some(Band { enter: 200, leave: 100 }));
    assert_eq!(limits("degraded_loss = \"off\"").loss, None);
    assert_eq!(limits("degraded_loss = \"5%\"").loss, Some(Band { enter: 50, leave: 25 }));
    assert_eq!(limits("restored_loss = \"2%\"").loss, Some(Band { enter: 200, leave: 20 }));
    // What an ISP says goes on from there.
    let text = "[monitor]\ndegraded_loss = \"40%\"\nrestored_loss = \"30%\"\n\
                [[isp]]\nname = \"A\"\ndevice = \"a\"\n[isp.monitor]\n";
    let own = |keys: &str| parse(&format!("{text}{keys}")).unwrap().isps[0].monitor.limits.loss;
    assert_eq!(own(""), Some(Band { enter: 400, leave: 300 }));
    assert_eq!(own("restored_loss = \"10%\""), Some(Band { enter: 400, leave: 100 }));
    assert_eq!(own("degraded_loss = \"20%\""), Some(Band { enter: 200, leave: 100 }));
    assert_eq!(own("degraded_loss = \"off\""), None);
}

#[test]
fn a_profile_is_a_set_of_defaults_and_that_of_an_isp_replaces_what_holds_for_all() {
    let profiles = [
        ("fast", Profile::Fast),
        ("balanced", Profile::Balanced),
        ("patient", Profile::Patient),
        ("metered", Profile::Metered),
    ];
    assert_eq!(MonitorConfig::of(Profile::Balanced), MonitorConfig::default());
    for (word, profile) in profiles {
        let text = format!(
            "[monitor]\nprofile = \"{word}\"\n[[isp]]\nname = \"A\"\ndevice = \"a\"\n\
             [[isp]]\nname = \"B\"\ndevice = \"b\"\nmonitor = {{ down_after = 9 }}\n\
             [[isp]]\nname = \"C\"\ndevice = \"c\"\nmonitor = {{ profile = \"balanced\", down_after = 5 }}\n"
        );
        let config = parse(&text).unwrap();
        let monitors: Vec<_> = config.isps.iter().map(|isp| isp.monitor.clone()).collect();
        assert_eq!(monitors[0], MonitorConfig::of(profile));
        assert_eq!(monitors[1], MonitorConfig { down_after: 9, ..MonitorConfig::of(profile) });
        assert_eq!(monitors[2], MonitorConfig { down_after: 5, ..MonitorConfig::default() });
    }
}

#[test]
fn the_profiles_send_as_many_bytes_as_the_documentation_says() {
    /// Ethernet, IP and ICMP headers, and 16 bytes; there and back.
    const BYTES: [(bool, u64); 2] = [(true, 2 * (14 + 20 + 8 + 16)), (false, 2 * (14 + 40 + 8 + 16))];
    let targets = parse(MINIMAL).unwrap().isps[0].targets.clone();
    let round: u64 = targets
        .iter()
        .map(|target| BYTES.iter().find(|(v4, _)| *v4 == target.is_for(Family::V4)).unwrap().1)
        .sum();
    let per_minute =
        |profile| round * 60_000 / u64::try_from(MonitorConfig::of(profile).interval.as_millis()).unwrap();
    assert_eq!(
        [Profile::Fast, Profile::Balanced, Profile::Patient, Profile::Metered].map(per_minute),
        [108_800, 32_640, 16_320, 544]
    );
    assert!(per_minute(Profile::Balanced) / 60 < 1000, "under 1 kB/s of an ISP");
}
