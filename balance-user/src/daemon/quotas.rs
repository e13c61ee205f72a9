//! What the ISPs have used of their quotas, over restarts and reboots: a file beside the history of events.
//!
//! The counters are in pinned maps and so outlive a daemon that is killed; what they had come to is in the file with what was
//! used by then. A reboot takes them away, so the file is never older than a minute, or a thousandth of a quota.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use balance_common::IspId;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::announce::history;
use crate::config::IspConfig;
use crate::core::{Account, Core, Reading, Record, Today};
use crate::datapath::{DatapathError, Maps, Pins};

const FILE: &str = "quota.json";
/// What is new is saved after so long at the latest.
const SAVE: Duration = Duration::from_mins(1);
/// Much that is new is saved sooner, but not more often than this: flash memory wears out.
const SAVE_MUCH: Duration = Duration::from_secs(5);
/// Such a part of a quota is much.
const MUCH: u64 = 1000;
/// A clock that moves by so much at once was wrong before, or is now; one that drifts is set by less.
const SET: u64 = 12 * 3600;

/// The file, and what is in it.
pub(super) struct Ledger {
    folders: Vec<PathBuf>,
    saved: Contents,
    saved_at: Instant,
    writing: Option<JoinHandle<io::Result<()>>>,
    failed: bool,
    clock: Clock,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    /// How often it was saved: of two files, the one that was saved more often counts.
    saves: u64,
    /// By the ISPs' names; those that are not metered now are kept.
    isps: BTreeMap<String, Record>,
}

/// Knows when the clock is set.
#[derive(Debug, Default)]
struct Clock {
    /// Seconds of the epoch when the machine was switched on, by the clock as it was.
    boot: Option<u64>,
}

impl Ledger {
    /// That of an instance.
    pub(super) fn open(instance: &str) -> Self {
        let folders: Vec<PathBuf> = history::folders(instance).into();
        Self {
            saved: load(&folders),
            folders,
            saved_at: Instant::now(),
            writing: None,
            failed: false,
            clock: Clock::default(),
        }
    }

    /// What is known of the ISPs' meters.
    pub(super) const fn records(&self) -> &BTreeMap<String, Record> {
        &self.saved.isps
    }

    /// What the clock says.
    pub(super) fn today(&mut self) -> Today {
        self.clock.today()
    }

    /// Saves what is worth it, in the background.
    pub(super) async fn keep(&mut self, core: &Core) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            self.judge(&writing.await.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
        let present = self.present(core);
        if self.writing.is_some() || !is_due(&self.saved.isps, &present, core, self.saved_at.elapsed()) {
            return;
        }
        let contents = self.take_over(present);
        let folders = self.folders.clone();
        self.writing = Some(spawn_blocking(move || save(&folders, &contents)));
    }

    /// Saves all of it, at the end.
    pub(super) async fn finish(mut self, core: &Core) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        let present = self.present(core);
        if present.iter().any(|(name, record)| self.saved.isps.get(name) != Some(record)) {
            let contents = self.take_over(present);
            let result = save(&self.folders, &contents);
            self.judge(&result);
        }
    }

    /// What is to be kept now. Of a quota that the config does not have any more, what was used: it may come back.
    fn present(&self, core: &Core) -> BTreeMap<String, Record> {
        let mut present = core.meters();
        for (name, record) in &mut present {
            if record.account.is_none() {
                record.account = self.saved.isps.get(name).and_then(|saved| saved.account.clone());
            }
        }
        present
    }

    fn take_over(&mut self, present: BTreeMap<String, Record>) -> Contents {
        self.saved_at = Instant::now();
        self.saved.saves += 1;
        self.saved.isps.extend(present);
        self.saved.clone()
    }

    /// Logs a failure, if it is the first.
    fn judge(&mut self, result: &io::Result<()>) {
        if let Err(error) = result
            && !self.failed
        {
            tracing::warn!(%error, "what is used of quotas cannot be saved, and would be lost by a reboot");
        }
        self.failed = result.is_err();
    }
}

/// How far the counters of an ISP have come.
pub(super) fn reading(maps: &Maps, isp: IspId) -> Result<Reading, DatapathError> {
    let counters = maps.counters(isp)?;
    Ok(Reading {
        maps: maps.settings()?.seed,
        isp: isp.get(),
        download: counters.all_rx().bytes,
        upload: counters.all_tx().bytes,
    })
}

/// Takes in the counters for the last time: their maps are about to go.
pub(super) fn close(instance: &str, pins: &Pins) -> anyhow::Result<()> {
    let folders = history::folders(instance);
    let mut contents = load(&folders);
    if contents.isps.values().all(|record| record.account.is_none()) {
        return Ok(());
    }
    let maps = Maps::open(pins)?;
    let today = Clock::default().today();
    for account in contents.isps.values_mut().filter_map(|record| record.account.as_mut()) {
        if let Some(isp) = account.reading().and_then(|reading| IspId::new(reading.isp)) {
            account.close(reading(&maps, isp)?, today);
        }
    }
    contents.saves += 1;
    Ok(save(&folders, &contents)?)
}

/// Is it worth writing a file?
fn is_due(
    saved: &BTreeMap<String, Record>,
    present: &BTreeMap<String, Record>,
    core: &Core,
    elapsed: Duration,
) -> bool {
    let limit_of = |name: &str| {
        let (_, isp): (_, &IspConfig) = core.metered().find(|(_, isp)| isp.name == name)?;
        Some(isp.metered.quota?.limit)
    };
    present.iter().any(|(name, record)| {
        let Some(before) = saved.get(name) else { return true };
        if before == record {
            return false;
        }
        let used = |record: &Record| record.account.as_ref().map_or(0, Account::used);
        let much = limit_of(name).map_or(u64::MAX, |limit| limit / MUCH);
        let is_other = before.full != record.full
            || before.account.as_ref().map(Account::essence) != record.account.as_ref().map(Account::essence);
        is_other || elapsed >= SAVE || elapsed >= SAVE_MUCH && used(record).abs_diff(used(before)) >= much
    })
}

fn load(folders: &[PathBuf]) -> Contents {
    let read = |folder: &PathBuf| {
        let path = folder.join(FILE);
        let bytes = fs::read(&path).ok()?;
        serde_json::from_slice::<Contents>(&bytes)
            .inspect_err(
                |error| tracing::warn!(%error, "{} makes no sense: quotas begin anew", path.display()),
            )
            .ok()
    };
    folders.iter().filter_map(read).max_by_key(|contents| contents.saves).unwrap_or_default()
}

/// Writes to the first folder that can be written, at once or not at all, and so that a crash of the machine leaves the one or
/// the other.
fn save(folders: &[PathBuf], contents: &Contents) -> io::Result<()> {
    let json = serde_json::to_vec(contents)?;
    let mut result = Err(io::ErrorKind::NotFound.into());
    for folder in folders {
        result = save_in(folder, &json);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn save_in(folder: &Path, json: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    file.write_all(json)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))
}

impl Clock {
    fn today(&mut self) -> Today {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // It goes on while the machine sleeps, and nobody sets it.
        let up = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0));
        let boot = epoch.saturating_sub(up);
        let before = self.boot.replace(boot);
        let set = before.is_some_and(|before| before.abs_diff(boot) >= SET);
        Today { date: jiff::ZonedDateTime::now().date(), set }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(saves: u64) -> Contents {
        Contents { saves, isps: [("DSL".to_owned(), Record { account: None, full: saves > 1 })].into() }
    }

    #[test]
    fn the_file_that_was_saved_more_often_counts_and_nonsense_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        let folders = [first.clone(), second.clone()];
        assert_eq!(load(&folders), Contents::default());
        save(std::slice::from_ref(&second), &contents(2)).unwrap();
        save(&folders, &contents(1)).unwrap();
        assert_eq!(load(&folders), contents(2));
        fs::write(second.join(FILE), "{").unwrap();
        assert_eq!(load(&folders), contents(1));
        assert!(!first.join("quota.json.new").exists());
    }

    #[test]
    fn a_clock_that_jumps_is_noticed_and_one_that_goes_on_is_not() {
        let mut clock = Clock::default();
        assert!(!clock.today().set && !clock.today().set);
        clock.boot = clock.boot.map(|boot| boot - SET);
        assert!(clock.today().set);
        assert!(!clock.today().set);
    }
}
