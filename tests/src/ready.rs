//! Whether this machine can run the lab, and how its tests wait.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use aya::programs::ProgramType;

/// How long it is at least until a condition is looked at again.
const POLL_TIME: Duration = Duration::from_millis(2);
/// And at most. In between it is twice what a look takes, because what is waited for wants the processors, too: to ask
/// `status` takes a process and a pass through conntrack.
const LONGEST_POLL_TIME: Duration = Duration::from_millis(100);

/// Whether tests of the lab can run here. If not, it prints why, in a line that starts with `SKIPPED: `, and the test
/// shall return.
///
/// # Panics
/// In CI (`CI=true`), where a test that does not run is a failure.
#[must_use]
pub fn ready() -> bool {
    ready_with(&[])
}

/// The same for a test that wants some programs more.
///
/// # Panics
/// As [`ready`].
#[must_use]
#[expect(clippy::print_stdout, reason = "this is the test's own output, counted by who runs the tests")]
pub fn ready_with(programs: &[&str]) -> bool {
    let Some(missing) = missing(programs) else { return true };
    let thread = std::thread::current();
    let line = format!("SKIPPED: {} needs {missing}", thread.name().unwrap_or("the lab"));
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{line}");
    println!("{line}");
    false
}

/// Waits until a condition holds.
///
/// # Errors
/// When it does not within `timeout`; `what` is what was waited for.
pub fn wait_until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let start = Instant::now();
        if condition() {
            return Ok(());
        }
        let now = Instant::now();
        if now > deadline {
            bail!("waited {timeout:?} in vain: {what}");
        }
        std::thread::sleep((2 * (now - start)).clamp(POLL_TIME, LONGEST_POLL_TIME));
    }
}

/// The first thing that the lab needs and this machine lacks.
fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    if !matches!(aya::sys::is_program_supported(ProgramType::SchedClassifier), Ok(true)) {
        return Some("a kernel with BPF".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        |tool: &&str| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let tool = ["ip", "tc", "nft", "conntrack"].iter().chain(programs).find(|tool| !installed(tool));
    tool.map(|tool| format!("the program {tool}"))
        .or_else(|| (!Path::new("/sys/fs/bpf").is_dir()).then(|| "the directory /sys/fs/bpf".to_owned()))
}
