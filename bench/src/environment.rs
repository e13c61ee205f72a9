//! Where and when something was measured.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine, the kernel and the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// When, in UTC, such as `2025-01-31T12:00:00Z`.
    pub date: String,
    /// The commit that was measured, with `-dirty` when it was changed; `unknown` outside of a repository.
    pub commit: String,
    /// The kernel's version.
    pub kernel: String,
    /// The processor and how many cores of it there are.
    pub machine: String,
    /// The core that was measured.
    pub core: usize,
    /// The versions of the tools of the peers, or that they are missing.
    pub tools: Vec<String>,
}

impl Environment {
    /// That of now and here.
    #[must_use]
    pub fn look(core: usize) -> Self {
        let unknown = || "unknown".to_owned();
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| processor(&text));
        let tools = [("nft", "--version"), ("iptables", "--version"), ("ip", "-V")];
        Self {
            date: ask("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_else(unknown),
            commit: ask("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
                .unwrap_or_else(unknown),
            kernel: ask("uname", &["-r"]).unwrap_or_else(unknown),
            machine: format!("{}, {cores} cores", processor.unwrap_or_else(unknown)),
            core,
            tools: tools
                .map(|(tool, option)| ask(tool, &[option]).unwrap_or_else(|| format!("{tool}: missing")))
                .into(),
        }
    }
}

/// The first line that a program says.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The processor's name in /proc/cpuinfo.
fn processor(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: A B 1\n"), Some("A B 1".to_owned()));
        assert_eq!(processor("CPU architecture: 8\n"), None);
    }
}
