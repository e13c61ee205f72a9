//! The time that one CPU core spends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The core that everything which is measured runs on.
///
/// What a piece of work costs is the CPU time of the thread that does it, in which the kernel's work for its packets
/// is contained, and that of the core's `ksoftirqd`, to which the kernel hands over what is too much at once. So other
/// programs on the same core do not count.
#[derive(Clone, Debug)]
pub struct Core {
    number: usize,
    /// Where the kernel says how long this core's `ksoftirqd` has run.
    softirqs: PathBuf,
}

impl Core {
    /// The last one that this process may use: the first ones serve most interrupts.
    ///
    /// # Errors
    /// When the kernel does not tell, or its threads are not to be seen, as in a container.
    pub fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot tell which cores there are")?;
        let number = (0..CpuSet::count()).rev().find(|&core| allowed.is_set(core).unwrap_or(false));
        let number = number.context("there is no core")?;
        Ok(Self { number, softirqs: find_softirqs(number)? })
    }

    /// Which one it is.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Moves the calling thread there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> anyhow::Result<()> {
        let mut cores = CpuSet::new();
        cores.set(self.number)?;
        sched_setaffinity(Pid::from_raw(0), &cores)
            .with_context(|| format!("cannot run on core {}", self.number))
    }

    /// How long the core's `ksoftirqd` has run so far.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn softirq_time(&self) -> anyhow::Result<Duration> {
        let text = fs::read_to_string(&self.softirqs)
            .with_context(|| format!("cannot read {}", self.softirqs.display()))?;
        let run = text.split(' ').next().and_then(|run| run.parse().ok());
        run.map(Duration::from_nanos).with_context(|| format!("no time in {text:?}"))
    }

    /// Does some work on this core, in the calling thread, and returns how long it took the core.
    ///
    /// # Errors
    /// When the work fails, or the kernel does not tell.
    pub fn time<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
        self.enter()?;
        let (softirqs, own) = (self.softirq_time()?, thread_time()?);
        let result = work()?;
        let own = thread_time()?.saturating_sub(own);
        Ok((result, own + self.softirq_time()?.saturating_sub(softirqs)))
    }
}

/// The CPU time of the calling thread so far.
///
/// # Errors
/// Never, on Linux.
pub fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn find_softirqs(core: usize) -> anyhow::Result<PathBuf> {
    let wanted = format!("ksoftirqd/{core}");
    let is_it = |folder: &PathBuf| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == wanted)
    };
    let mut processes =
        fs::read_dir("/proc").context("cannot list /proc")?.flatten().map(|entry| entry.path());
    let folder = processes.find(is_it).with_context(|| format!("the thread {wanted} is not to be seen"))?;
    Ok(folder.join("schedstat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_threads_do_does_not_count() {
        let before = thread_time().unwrap();
        let other = std::thread::spawn(|| {
            let start = thread_time().unwrap();
            while thread_time().unwrap().saturating_sub(start) < Duration::from_millis(20) {}
        });
        other.join().unwrap();
        let own = thread_time().unwrap().saturating_sub(before);
        assert!(own < Duration::from_millis(10), "{own:?}");
    }
}
