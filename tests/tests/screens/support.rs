//! Screens, and those that are kept to compare with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use balance_lab::{Daemon, Family, Flow, Host, IspSpec, Lab, Terminal, Transport, binary};

pub(crate) const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

/// A lab with one ISP, so that there is nothing to choose, and a flow by it.
pub(crate) fn with_a_flow() -> (Lab, Daemon, Flow) {
    let lab = Lab::builder().isp(IspSpec::new("CABLE")).build().unwrap();
    let daemon = lab.start_up().unwrap();
    let mut flow = Flow::open(lab.lan(), Transport::Udp, Family::V4, Duration::from_secs(5)).unwrap();
    flow.ask().unwrap();
    (lab, daemon, flow)
}

/// Opens a terminal with `balance-user` and these words.
pub(crate) fn open<'a>(lab: &'a Lab, size: (u16, u16), words: &str) -> Terminal<'a> {
    open_on(lab.router(), size, words)
}

fn open_on<'a>(host: &'a Host, size: (u16, u16), words: &str) -> Terminal<'a> {
    Terminal::open(host, size, &format!("{} {words}", binary().unwrap().display())).unwrap()
}

/// The screen when that has ended.
pub(crate) fn ended(lab: &Lab, size: (u16, u16), words: &str) -> String {
    open(lab, size, words).wait(|screen| screen.contains("ended: ")).unwrap()
}

/// Compares what does not change with the file of that name: numbers are `N`, and so much space is one. `UPDATE_SNAPSHOTS=1` writes it
/// anew, to be looked at.
#[track_caller]
pub(crate) fn is_as_kept(name: &str, size: (u16, u16), screen: &str) {
    let masked = masked(screen);
    let path = kept(name, size);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &masked).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(masked == kept, "{} is another one:\n{masked}\nThe screen is\n{screen}", path.display());
}

/// The same for a screen that goes on changing: waits until it is so.
#[track_caller]
pub(crate) fn comes_to_be_as_kept(name: &str, size: (u16, u16), terminal: &Terminal<'_>) {
    let kept = std::fs::read_to_string(kept(name, size)).unwrap_or_default();
    if terminal.wait(|screen| masked(screen) == kept).is_err() {
        // Says what it is instead.
        is_as_kept(name, size, &terminal.screen().unwrap());
    }
}

fn kept(name: &str, (columns, lines): (u16, u16)) -> PathBuf {
    let file = format!("tests/screens/kept/{name}-{columns}x{lines}.txt");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Without what is another one each time.
fn masked(screen: &str) -> String {
    let line = |line: &str| {
        if line.starts_with("ended: ") {
            return line.trim_end().to_owned() + "\n";
        }
        let words = line.split_whitespace().map(|word| {
            // Not known yet.
            if word == "-" {
                return "N".to_owned();
            }
            let mut masked = String::new();
            for character in word.chars() {
                let is_bar = ('▁'..='█').contains(&character);
                let is_part = character.is_ascii_digit() || (character == '.' && masked.ends_with('N'));
                match character {
                    _ if is_part && masked.ends_with('N') => {}
                    _ if is_part => masked.push('N'),
                    // Thousands and millions.
                    'k' | 'M' | 'm' | 's' if masked.ends_with('N') => {}
                    '<' | '+' | '─' => {}
                    _ if is_bar => {}
                    other => masked.push(other),
                }
            }
            masked
        });
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        words.join(" ") + "\n"
    };
    let text: String = screen.lines().map(line).collect();
    text.trim_end().to_owned() + "\n"
}
