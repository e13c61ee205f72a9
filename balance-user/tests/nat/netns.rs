//! A machine of the lab, in the words of these tests: commands as one line, failures as panics.

use balance_lab::{Host, ready};

/// A machine that nothing is set up on.
pub(crate) struct Netns(Host);

impl Netns {
    /// A new one; none, with a message, where this is not possible.
    pub(crate) fn new() -> Option<Self> {
        ready().then(|| Self(Host::new("test").unwrap()))
    }

    /// Runs this in the namespace, on a thread of its own. Sockets made there stay there.
    pub(crate) fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.0.run(what)
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

    /// Joins both by a veth pair, and takes the ends up.
    pub(crate) fn join(&self, device: &str, other: &Self, other_device: &str) {
        let far = other.0.netns();
        self.ip(&format!("link add {device} type veth peer name {other_device} netns {far}"));
        self.ip(&format!("link set {device} up"));
        other.ip(&format!("link set {other_device} up"));
    }

    /// Runs a command that reads this.
    pub(crate) fn command_with_input(&self, line: &str, input: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.0.feed(words[0], &words[1..], input).unwrap()
    }
}
