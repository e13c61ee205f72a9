//! One machine of the lab: a network namespace and a mount namespace that have no name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::Child;
use crate::mounts;

/// A machine: its own network, and its own `/run`, `/var/lib`, `/sys/fs/bpf` and `/etc/iproute2`.
///
/// Its namespaces are held by file descriptors and threads of this process only, so however the process ends, the
/// kernel takes them down. They also live on while a socket made in them is open: drop flows with their lab.
pub struct Host {
    name: String,
    namespaces: Arc<Namespaces>,
    keeper: Keeper,
}

impl Host {
    /// Makes a machine with nothing but a loopback device, which is up. The name is for messages.
    ///
    /// # Errors
    /// Without the rights to make namespaces and to mount.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let (keeper, namespaces) =
            Keeper::start(name).with_context(|| format!("cannot make the host {name}"))?;
        let host = Self { name: name.to_owned(), namespaces: Arc::new(namespaces), keeper };
        host.sysctls(&[
            // An address is usable at once, and only what the lab sets up is there.
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.dad_transmits", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            // These may come from the machine that runs the lab.
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
        ])?;
        host.ip(&["link set lo up".to_owned()])?;
        Ok(host)
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a fresh thread on this machine; sockets made there stay there. A panic in it goes on here.
    ///
    /// # Panics
    /// When `work` does, or the host cannot be entered.
    #[expect(
        clippy::panic,
        reason = "without its namespaces a host is broken beyond use, as in a failed assertion"
    )]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| match self.namespaces.enter_thread() {
                    Ok(()) => work(),
                    Err(error) => panic!("cannot enter the host {}: {error}", self.name),
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run on this machine, in `/`.
    ///
    /// It is killed when the *thread* that spawns it ends, so wait for it in that thread, or use [`Host::spawn`].
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let namespaces = Arc::clone(&self.namespaces);
        let parent = Pid::this();
        let mut command = Command::new(program.as_ref());
        let enter = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above.
            if getppid() != parent {
                return Err(io::Error::other("the lab is gone"));
            }
            namespaces.enter()
        };
        // SAFETY: between fork and exec only system calls are made, nothing allocates and no lock is taken.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Starts a command of [`Host::command`] that runs until it is dropped, at most as long as this machine and this
    /// process: also after a `SIGKILL`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        let what = format!("{} on {}", command.get_program().display(), self.name);
        let child =
            self.keeper.work(move || command.spawn())?.with_context(|| format!("cannot start {what}"))?;
        Ok(Child::new(child))
    }

    /// Runs a shell script and returns what it printed.
    ///
    /// # Errors
    /// With what it said on stderr when one of its commands fails.
    pub fn sh(&self, script: &str) -> anyhow::Result<String> {
        self.feed("sh", &["-ec", script], "").with_context(|| format!("{script:?} failed"))
    }

    /// Makes a script for the shell that can be run, and its folder. A process of its own writes it: what this one had open for
    /// writing, children that other threads start just then would have open too, and the kernel runs no such file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn script(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let script = format!("#!/bin/sh\n{text}\n");
        self.feed("install", &["-D", "-m", "755", "/dev/stdin", path], &script)?;
        Ok(())
    }

    /// Runs a program with `input` as its stdin and returns what it printed.
    ///
    /// # Errors
    /// With what it said on stderr when it fails.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start {program} on {}", self.name))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that fails early does not read; its exit code tells.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{program} on {} ended with {}: {}",
            self.name,
            output.status,
            stderr.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs lines of `ip` as one batch.
    ///
    /// # Errors
    /// When one of them fails; those before it have been carried out.
    pub fn ip(&self, lines: &[String]) -> anyhow::Result<()> {
        let input = lines.join("\n");
        self.feed("ip", &["-batch", "-"], &input).with_context(|| format!("in this batch:\n{input}"))?;
        Ok(())
    }

    /// Sets sysctls of the network, by dotted names.
    ///
    /// # Errors
    /// When one does not exist or does not take the value.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        self.run(|| {
            for (name, value) in settings {
                std::fs::write(sysctl_path(name), value)
                    .with_context(|| format!("cannot set {name} to {value}"))?;
            }
            Ok(())
        })
    }

    /// Reads a sysctl of the network, by its dotted name.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub fn sysctl(&self, name: &str) -> anyhow::Result<String> {
        let read = self.run(|| std::fs::read_to_string(sysctl_path(name)));
        Ok(read.with_context(|| format!("cannot read {name}"))?.trim().to_owned())
    }

    /// What `ip` takes for this machine's network namespace, such as in `ip link set tun0 netns ...`.
    #[must_use]
    pub fn netns(&self) -> String {
        use std::os::fd::AsRawFd;
        // Not `/proc/self`: `ip` is another process.
        format!("/proc/{}/fd/{}", std::process::id(), self.namespaces.net.as_raw_fd())
    }

    /// Starts a thread on this machine that has a table of file descriptors of its own, so that its ten thousand
    /// sockets do not count against the limit of everybody else's. `work` must not own descriptors made outside.
    pub(crate) fn worker<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let namespaces = Arc::clone(&self.namespaces);
        thread::Builder::new().name(self.name.clone()).spawn(move || {
            namespaces.enter_thread()?;
            // Before the table changes: this may be what closes them.
            drop(namespaces);
            own_descriptors()?;
            work()
        })
    }
}

/// The pair of namespaces of a host.
struct Namespaces {
    net: OwnedFd,
    mnt: OwnedFd,
}

impl Namespaces {
    /// Makes new ones for the calling thread.
    fn make() -> anyhow::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make namespaces")?;
        mounts::make_private()?;
        let open = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}")).map(OwnedFd::from);
        Ok(Self { net: open("net")?, mnt: open("mnt")? })
    }

    /// Moves a process with one thread, or a thread that shares no working directory, into them.
    fn enter(&self) -> io::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }

    /// Moves one thread of many into them, for good.
    fn enter_thread(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        self.enter()
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that made a host's namespaces and lives as long as the host. Processes are started from it, since the
/// kernel kills them when the thread that started them ends.
struct Keeper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(name: &str) -> anyhow::Result<(Self, Namespaces)> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (made, answer) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = made.send(Namespaces::make());
            for job in inbox {
                job();
            }
        })?;
        let keeper = Self { jobs: Some(jobs), thread: Some(thread) };
        let namespaces = answer.recv().context("the host's thread died")??;
        Ok((keeper, namespaces))
    }

    /// Runs `work` in the thread and waits for it.
    fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let (done, answer) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = done.send(work());
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            bail!("the host's thread is gone");
        }
        answer.recv().context("the host's thread died")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives the calling thread an empty table of file descriptors, but for stdin, stdout and stderr.
fn own_descriptors() -> io::Result<()> {
    const UNSHARE: libc::c_int = 1 << 1; // CLOSE_RANGE_UNSHARE
    // SAFETY: it closes descriptors of this thread's new table only; the callers of `worker` bring none along.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, UNSHARE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}
