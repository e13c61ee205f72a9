//! A network namespace for one test.

use std::future::Future;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Only so that a test that waits in vain fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a test on a machine of its own.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if !balance_lab::ready() {
        return;
    }
    balance_lab::Host::new("test").expect("a machine").run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await.expect("in time") });
    });
}

/// Runs `ip` with these arguments, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip can be run");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs many commands of `ip` quickly.
pub(crate) fn ip_batch(commands: &str) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip can be run");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("ip reads");
    assert!(child.wait().expect("ip ends").success());
}

/// A veth pair `name` and `name` + `-far`, both up, with the addresses 10.`net`.0.2/24 and 2001:db8:`net`::2/64.
pub(crate) fn veth(name: &str, net: u8) -> u32 {
    ip(&format!("link add {name} type veth peer name {name}-far"));
    ip(&format!("link set {name}-far up"));
    ip(&format!("link set {name} up"));
    ip(&format!("addr add 10.{net}.0.2/24 dev {name}"));
    ip(&format!("addr add 2001:db8:{net}::2/64 dev {name} nodad"));
    index(name)
}

/// The index of a device.
pub(crate) fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("the device is there")
}

/// Everything a reconciler may have touched, as text.
pub(crate) fn everything() -> String {
    [
        ip("-d rule show"),
        ip("-6 -d rule show"),
        ip("-d route show table all"),
        ip("-6 -d route show table all"),
    ]
    .concat()
}
