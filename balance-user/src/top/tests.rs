#![cfg(test)]

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::cli::report::samples::report;
use crate::flows::{Chosen, Why};

fn flow(last: u8, isp: &str, bytes: Option<u64>, age: u64) -> FlowTold {
    let bucket = Some(100 + usize::from(last));
    FlowTold {
        protocol: "tcp".to_owned(),
        source: [192, 168, 1, last].into(),
        source_port: Some(40_000),
        destination: [198, 51, 100, 9].into(),
        destination_port: Some(443),
        isp: isp.to_owned(),
        seen_as: None,
        fast: last.is_multiple_of(2),
        bytes,
        packets: None,
        age: Some(age),
        why: Why::Bucket(Chosen { rule: None, policy: None, bucket, bucket_isp: None }),
    }
}

fn host(last: u8, flows: u64) -> Host {
    let isps = [("CABLE".to_owned(), flows - 1), ("DSL".to_owned(), 1)].into();
    Host { address: [192, 168, 1, last].into(), flows, bytes: Some(1000 * u64::from(last)), isps }
}

/// How it stands after so many seconds: CABLE carries more and more.
fn sample(second: u64) -> Sample {
    let mut report = report();
    for (isp, factor) in report.isps.iter_mut().zip([1_000_000, 50_000, 0]) {
        isp.tx_bytes = Some(factor * second * second / 10);
        isp.rx_bytes = Some(factor * second * second);
        isp.fast_packets = Some(90 * second);
        isp.slow_packets = Some(10 * second);
    }
    Sample {
        time: UNIX_EPOCH + Duration::from_secs(1_795_000_000 + second),
        report,
        flows: vec![
            flow(10, "CABLE", Some(1_234_567), 65),
            flow(11, "DSL", Some(99), 3),
            flow(20, "CABLE", Some(9_999_999), 4000),
        ],
        hosts: vec![host(10, 3), host(20, 300)],
        events: (0..30).map(|number| format!("2026-11-23T16:42:{number:02}Z  DSL is down, was up")).collect(),
    }
}

fn state(seconds: u64) -> State {
    let mut state = State::default();
    (1..=seconds).for_each(|second| state.take(sample(second)));
    state
}

fn press(state: &mut State, keys: &str) -> Action {
    let key = |character| match character {
        '\n' => KeyCode::Enter,
        '\t' => KeyCode::Tab,
        '\x1b' => KeyCode::Esc,
        '\x08' => KeyCode::Backspace,
        '↓' => KeyCode::Down,
        '↑' => KeyCode::Up,
        character => KeyCode::Char(character),
    };
    keys.chars()
        .fold(Action::None, |_, character| state.key(&KeyEvent::new(key(character), KeyModifiers::NONE)))
}

fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// Compares with the file of that name. `UPDATE_SNAPSHOTS=1` writes it anew, to be looked at.
#[track_caller]
fn is_as_kept(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, screen).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(screen == kept, "{} is another one:\n{screen}", path.display());
}

#[test]
fn it_looks_as_it_is_meant_to_at_80x24_and_200x50() {
    let mut state = state(12);
    is_as_kept("flows-80x24.txt", &screen(&state, 80, 24));
    is_as_kept("all-200x50.txt", &screen(&state, 200, 50));
    press(&mut state, "\t");
    is_as_kept("hosts-80x24.txt", &screen(&state, 80, 24));
    press(&mut state, "\t?");
    is_as_kept("events-help-80x24.txt", &screen(&state, 80, 24));
    press(&mut state, "x↓d");
    is_as_kept("confirm-80x24.txt", &screen(&state, 80, 24));
}

#[test]
fn it_can_be_drawn_at_any_size_and_before_anything_is_known() {
    for state in [State::default(), state(1), state(400)] {
        for (width, height) in [(1, 1), (10, 3), (80, 24), (149, 5), (150, 5), (300, 100)] {
            screen(&state, width, height);
        }
    }
    let mut state = state(2);
    press(&mut state, "?");
    screen(&state, 5, 2);
}

#[test]
fn rates_are_those_since_the_sample_before() {
    let state = state(3);
    let rates: Vec<f64> = state.rates["CABLE"].iter().map(|rate| rate.received).collect();
    assert_eq!(rates, [24e6, 40e6]);
    assert_eq!(state.rates["CABLE"].back().unwrap().fast, Some(0.9));
    // Counters that have begun anew, or time that goes back, tell nothing.
    let mut other = state.clone();
    other.take(Sample { time: sample(4).time, ..sample(1) });
    other.take(sample(1));
    assert_eq!(other.rates["CABLE"].len(), 2);
    // As many as are ever shown.
    assert_eq!(tests::state(400).rates["CABLE"].len(), HISTORY);
}

#[test]
fn what_changes_something_is_asked_for_and_done_when_confirmed() {
    let mut state = state(1);
    for (keys, command) in [
        ("d", Command::Force("CABLE".to_owned(), Force::Down)),
        ("↓u", Command::Force("DSL".to_owned(), Force::Up)),
        ("↓↓↓a", Command::Force("LTE".to_owned(), Force::Auto)),
        ("↑↑↑↑+", Command::SetWeight("CABLE".to_owned(), 4)),
        ("-", Command::SetWeight("CABLE".to_owned(), 2)),
        ("↓-", Command::SetWeight("DSL".to_owned(), 1)),
        ("w12x3\x08\n", Command::SetWeight("DSL".to_owned(), 12)),
    ] {
        assert_eq!(press(&mut state, keys), Action::None, "{keys}");
        assert_eq!(state.mode, Mode::Confirm(command.clone()), "{keys}");
        let before = state.clone();
        assert_eq!(press(&mut state, "n"), Action::None);
        assert_eq!((state.mode, state.message.as_deref()), (Mode::Normal, Some("nothing was changed")));
        state = before;
        assert_eq!(press(&mut state, "y"), Action::Do(command));
        assert_eq!(state.mode, Mode::Normal);
    }
    for keys in ["w0\n", "w\n", "w1001\n"] {
        assert_eq!(press(&mut state, keys), Action::None);
        assert_eq!(state.message.as_deref(), Some("a weight is 1 to 1000"), "{keys}");
    }
    press(&mut state, "w1\x1b");
    assert_eq!(state.mode, Mode::Normal);
}

#[test]
fn q_and_ctrl_c_end_it_whatever_is_open() {
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for keys in ["", "?", "/", "d", "w"] {
        let mut state = state(1);
        press(&mut state, keys);
        assert_eq!(state.key(&ctrl_c), Action::Quit, "{keys}");
    }
    assert_eq!(press(&mut state(1), "q"), Action::Quit);
    assert_eq!(press(&mut state(1), "/q"), Action::None);
    assert_eq!(press(&mut State::default(), "dua+-w↓q"), Action::Quit, "without ISPs");
}

#[test]
fn flows_and_hosts_are_sorted_and_filtered() {
    let mut state = state(1);
    let flows = |state: &State| -> Vec<String> {
        state.flows().iter().map(|flow| flow.source.to_string().replace("192.168.1.", "")).collect()
    };
    let hosts = |state: &State| state.hosts().iter().map(|host| host.flows).collect::<Vec<_>>();
    assert_eq!((flows(&state).join(" "), hosts(&state)), ("20 10 11".to_owned(), vec![300, 3]));
    press(&mut state, "s");
    assert_eq!((flows(&state).join(" "), hosts(&state)), ("11 10 20".to_owned(), vec![300, 3]));
    press(&mut state, "s");
    assert_eq!((flows(&state).join(" "), hosts(&state)), ("10 11 20".to_owned(), vec![3, 300]));
    press(&mut state, "/ca\x08able\n");
    assert_eq!(flows(&state).join(" "), "10 20");
    press(&mut state, "/\x1b/1.11:\n");
    assert_eq!(flows(&state).join(" "), "11");
    press(&mut state, "\x1b");
    assert_eq!(flows(&state).len(), 3);
    press(&mut state, "/168.1.20\n");
    assert_eq!(hosts(&state), [300]);
}
