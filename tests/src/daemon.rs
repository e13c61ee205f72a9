//! The real program on the lab's router.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::notify::Notify;
use crate::{Child, Lab, wait_until};

/// Where [`Lab::write_config`] writes.
const CONFIG: &str = "/run/balance.toml";
/// How long the daemon may take to be ready, and to end.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a command said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A running `balance-user run`; dropping it is a `SIGKILL`.
pub struct Daemon {
    child: Child,
    notify: Notify,
    stderr: Collected,
}

impl Lab {
    /// Writes the daemon's configuration to the router's file system, which only [`Lab::router`] sees, and returns its
    /// path there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, toml: &str) -> io::Result<PathBuf> {
        self.router().run(|| std::fs::write(CONFIG, toml))?;
        Ok(CONFIG.into())
    }

    /// Reads the configuration back.
    ///
    /// # Errors
    /// When none was written.
    pub fn read_config(&self) -> io::Result<String> {
        self.router().run(|| std::fs::read_to_string(CONFIG))
    }

    /// Runs `balance-user` with these arguments on the router and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started; not when it fails.
    pub fn balance(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let binary = binary()?;
        let output = self.router().command(&binary).args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts `balance-user run --config FILE` with these further arguments on the router, with the file of
    /// [`Lab::write_config`], or else with [`Lab::config`], and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it is not ready within ten seconds, with its stderr.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Daemon> {
        if !self.router().run(|| Path::new(CONFIG).exists()) {
            self.write_config(&self.config())?;
        }
        let mut command = self.router().command(binary()?);
        command.args(["run", "--config", CONFIG]).args(arguments);
        Daemon::start(self, command)
    }
}

impl Daemon {
    /// Starts a command of the router that says by sd-notify when it is ready, and waits until it is.
    ///
    /// # Errors
    /// When it is not ready within ten seconds, with its stderr.
    pub fn start(lab: &Lab, mut command: Command) -> anyhow::Result<Self> {
        let notify = Notify::open(lab.router())?;
        command.env("NOTIFY_SOCKET", notify.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = lab.router().spawn(command)?;
        let stderr = child.stderr.take().context("a child without stderr")?;
        let mut daemon = Self { child, notify, stderr: Collected::start(stderr) };
        let mut ended = None;
        let ready = wait_until(TIMEOUT, "the daemon being ready", || {
            ended = daemon.child.try_wait().ok().flatten();
            ended.is_some() || daemon.notifications().iter().any(|line| line == "READY=1")
        });
        match (ready, ended) {
            (Ok(()), None) => Ok(daemon),
            (_, Some(status)) => bail!("the daemon ended with {status}:\n{}", daemon.stderr.all()),
            (Err(error), None) => {
                daemon.child.kill9()?;
                Err(error.context(format!("the daemon said:\n{}", daemon.stderr.all())))
            }
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// The lines it has sent by sd-notify so far, such as `READY=1` and `WATCHDOG=1`.
    #[must_use]
    pub fn notifications(&self) -> Vec<String> {
        self.notify.lines()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid().try_into()?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the daemon"))
    }

    /// Replaces the file of [`Lab::write_config`] and has it read again; returns when that has been taken over.
    ///
    /// # Errors
    /// When it has not within ten seconds, with what the daemon said.
    pub fn reload(&self, lab: &Lab, toml: &str) -> anyhow::Result<()> {
        let readies = || self.notifications().iter().filter(|line| *line == "READY=1").count();
        let before = readies();
        lab.write_config(toml)?;
        self.signal(Signal::SIGHUP)?;
        wait_until(TIMEOUT, "the reload", || readies() > before)
            .with_context(|| format!("the daemon said:\n{}", self.stderr()))
    }

    /// Ends it with `SIGKILL`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill9(mut self) -> io::Result<()> {
        self.child.kill9().map(drop)
    }

    /// Asks it to end with `SIGTERM` and waits for that.
    ///
    /// # Errors
    /// When it has not ended within ten seconds.
    pub fn terminate(mut self) -> anyhow::Result<Output> {
        self.signal(Signal::SIGTERM)?;
        let mut ended = None;
        wait_until(TIMEOUT, "the daemon's end", || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })
        .with_context(|| format!("the daemon said:\n{}", self.stderr()))?;
        let status = ended.context("the daemon has no exit status")?;
        Ok(Output { status, stdout: String::new(), stderr: self.stderr.all() })
    }
}

/// The program: `BALANCE_USER`, or else the debug build of this workspace.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    find_binary(std::env::var_os("BALANCE_USER"), &own).with_context(|| {
        format!("no balance-user near {}: build it first, or set BALANCE_USER to its path", own.display())
    })
}

fn find_binary(given: Option<OsString>, own: &Path) -> Option<PathBuf> {
    match given {
        Some(path) => Some(path.into()),
        None => {
            own.ancestors().map(|directory| directory.join("debug/balance-user")).find(|path| path.is_file())
        }
    }
}

/// Everything that comes out of a pipe, read in the background so that nobody waits for us to read.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Collected {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(buffer.iter().take(length));
            }
        });
        Self { bytes, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Everything, of a process that has ended.
    fn all(self) -> String {
        let _ = wait_until(Duration::from_secs(1), "the end of a pipe", || self.thread.is_finished());
        self.so_far()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_program_comes_before_the_built_one() {
        let given = find_binary(Some("/opt/balance-user".into()), Path::new("/nowhere/debug/deps/lab"));
        assert_eq!(given, Some("/opt/balance-user".into()));
        assert_eq!(find_binary(None, Path::new("/nowhere/debug/deps/lab")), None);
    }
}
