//! Anonymous network namespaces: they vanish with the last file descriptor.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
pub(crate) struct Netns(File);

impl Netns {
    /// A new one with its loopback device up; none, with a message, where this is not possible.
    pub(crate) fn new() -> Option<Self> {
        let missing = ["ip", "nft", "conntrack"].into_iter().find(|tool| {
            let attempt =
                Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            attempt.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        });
        let reason = if !nix::unistd::geteuid().is_root() {
            "not root".to_owned()
        } else if let Some(tool) = missing {
            format!("no {tool}")
        } else {
            let file = thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            let netns = Self(file.join().unwrap());
            netns.ip("link set lo up");
            return Some(netns);
        };
        assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot run in CI: {reason}");
        eprintln!("SKIPPED: {}: {reason}", thread::current().name().unwrap_or_default());
        None
    }

    /// Runs this in the namespace, on a thread of its own. Sockets made there stay there.
    pub(crate) fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                what()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs async code in the namespace.
    pub(crate) fn block_on<T: Send>(&self, what: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(what())
        })
    }

    /// Runs a command and returns what it printed. Words are separated by spaces.
    pub(crate) fn command(&self, line: &str) -> String {
        self.command_with_input(line, "")
    }

    /// Runs `ip`.
    pub(crate) fn ip(&self, arguments: &str) {
        self.command(&format!("ip {arguments}"));
    }

    /// Runs an nft script.
    pub(crate) fn nft(&self, script: &str) {
        self.command_with_input("nft -f -", script);
    }

    /// Joins both by a veth pair, and takes the ends up. Addresses are usable at once.
    pub(crate) fn join(&self, device: &str, other: &Self, other_device: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add {device} type veth peer name {other_device} netns {path}"));
        for (netns, device) in [(self, device), (other, other_device)] {
            netns.run(|| {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_dad"), "0");
                let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0");
            });
            netns.ip(&format!("link set {device} up"));
        }
    }

    /// Runs a command that reads this.
    pub(crate) fn command_with_input(&self, line: &str, input: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.run(|| {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {stderr}{input}");
            String::from_utf8(output.stdout).unwrap()
        })
    }
}
