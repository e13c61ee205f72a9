//! Setting kernel settings so that they can be put back.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::{fs, mem};

use serde::{Deserialize, Serialize};

use super::plan::{ECHO_TIMEOUTS, FORWARD_V6, FlowTimeouts, SysctlFacts, UDP_TIMEOUTS, accept_ra, rp_filter};
use crate::core::plan::Sysctl;

const PROC_SYS: &str = "/proc/sys";

/// Why a kernel setting could not be read, set or remembered.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The key leads out of `/proc/sys`.
    #[error("{0} is not a kernel setting")]
    Key(String),
    /// The kernel refused.
    #[error("cannot {what} the kernel setting {key}")]
    Access {
        /// `read` or `set`.
        what: &'static str,
        /// The setting.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// The file with the original values could not be read or written; nothing is changed without it.
    #[error("cannot keep the original kernel settings in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was changed, and what it was before; kept in a file that a later daemon, or `stop`, can read. The file
/// belongs on a file system that does not outlive the kernel, such as `/run`.
#[derive(Debug)]
pub struct Saved {
    path: PathBuf,
    /// In the order in which they were set; always what the file says.
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    key: String,
    /// What it was before we first set it.
    original: String,
    /// What we set it to.
    set: String,
    /// What other settings were that the kernel changes along with this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    along: BTreeMap<String, String>,
}

impl Saved {
    /// What the file knows; nothing, if there is no file.
    pub fn load(path: &Path) -> Result<Self, SysctlError> {
        let changes = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let changes = changes.map_err(|source| SysctlError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), changes })
    }

    /// What [`super::plan`] needs to know: the values as they would be without us. Where a value is still the one we
    /// set, that is the original; where somebody changed it since, it is theirs.
    #[must_use]
    pub fn facts(&self, isps: &[&str]) -> SysctlFacts {
        let number = |key: String| self.without_us(&key)?.parse().ok();
        let of_each = |key: fn(&str) -> String| {
            isps.iter().filter_map(|device| Some(((*device).to_owned(), number(key(device))?))).collect()
        };
        let least = |keys: [&str; 2]| keys.into_iter().filter_map(|key| number(key.to_owned())).min();
        SysctlFacts {
            rp_filter_all: number(rp_filter("all")).unwrap_or(0),
            rp_filter: of_each(rp_filter),
            accept_ra: of_each(accept_ra),
            ipv6: matches!(read(FORWARD_V6), Ok(Some(_))),
            flow_timeouts: FlowTimeouts { udp: least(UDP_TIMEOUTS), echo: least(ECHO_TIMEOUTS) },
        }
    }

    /// Sets what differs from the plan, and puts back what we set but the plan no longer has. Settings that do
    /// not exist (of a device that is gone) are no error. Goes on after an error.
    pub fn ensure(&mut self, plan: &[Sysctl]) -> Vec<SysctlError> {
        let mut errors = Vec::new();
        let on_disk = self.changes.clone();
        let (kept, dropped) = mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| plan.iter().any(|s| s.key == change.key));
        self.changes = kept;
        self.changes.extend(put_back(dropped, &mut errors));

        let mut pending = Vec::new();
        for sysctl in plan {
            match read(&sysctl.key) {
                Ok(Some(present)) if present != sysctl.value => {
                    self.remember(sysctl, present);
                    pending.push(sysctl);
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        // Only what is safe on disk may be changed.
        if self.changes != on_disk
            && let Err(error) = self.store()
        {
            self.changes = on_disk;
            errors.push(error);
            return errors;
        }
        errors.extend(pending.into_iter().filter_map(|sysctl| write(&sysctl.key, &sysctl.value).err()));
        errors
    }

    /// Would [`Self::ensure`] of this plan put this setting back?
    #[must_use]
    pub fn puts_back(&self, key: &str, plan: &[Sysctl]) -> bool {
        self.changes.iter().any(|change| change.key == key) && plan.iter().all(|sysctl| sysctl.key != key)
    }

    /// Puts everything back, last set first, but for what somebody else has changed since, and removes the file. What
    /// cannot be put back stays in the file for another attempt.
    pub fn restore(&mut self) -> Vec<SysctlError> {
        self.ensure(&[])
    }

    fn without_us(&self, key: &str) -> Option<String> {
        let present = read(key).ok()??;
        let ours = self.changes.iter().find(|change| change.key == key && change.set == present);
        Some(ours.map_or(present, |change| change.original.clone()))
    }

    fn remember(&mut self, sysctl: &Sysctl, present: String) {
        if let Some(known) = self.changes.iter_mut().find(|change| change.key == sysctl.key) {
            known.set.clone_from(&sysctl.value);
            return;
        }
        self.changes.push(Change {
            key: sysctl.key.clone(),
            original: present,
            set: sysctl.value.clone(),
            along: changed_along(&sysctl.key),
        });
    }

    /// Replaces the file at once, or removes it if there is nothing to put back. Not synced: the settings themselves
    /// do not survive a power failure either.
    fn store(&self) -> Result<(), SysctlError> {
        let replace = || {
            if self.changes.is_empty() {
                return match fs::remove_file(&self.path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = self.path.with_extension("new");
            fs::write(&new, serde_json::to_vec_pretty(&self.changes)?)?;
            fs::rename(&new, &self.path)
        };
        replace().map_err(|source| SysctlError::File { path: self.path.clone(), source })
    }
}

/// Puts these back, last first. Returns those that could not be, in their order.
fn put_back(changes: Vec<Change>, errors: &mut Vec<SysctlError>) -> Vec<Change> {
    let mut failed = Vec::new();
    for change in changes.into_iter().rev() {
        if let Err(error) = put_back_one(&change) {
            errors.push(error);
            failed.push(change);
        }
    }
    failed.reverse();
    failed
}

fn put_back_one(change: &Change) -> Result<(), SysctlError> {
    if read(&change.key)?.as_ref() != Some(&change.set) {
        return Ok(());
    }
    // What changes along: ours goes back to what it was, another's stays.
    let targets: Vec<_> = changed_along(&change.key)
        .into_iter()
        .filter_map(|(key, present)| {
            let target = if present == change.set { change.along.get(&key).cloned()? } else { present };
            Some((key, target))
        })
        .collect();
    write(&change.key, &change.original)?;
    for (key, target) in targets {
        if read(&key)?.is_some_and(|present| present != target) {
            write(&key, &target)?;
        }
    }
    Ok(())
}

/// The settings that the kernel changes along with this one, with their present values.
fn changed_along(key: &str) -> BTreeMap<String, String> {
    if key != FORWARD_V6 {
        return BTreeMap::new();
    }
    let Ok(devices) = fs::read_dir(Path::new(PROC_SYS).join("net/ipv6/conf")) else { return BTreeMap::new() };
    devices
        .filter_map(|device| Some(format!("net/ipv6/conf/{}/forwarding", device.ok()?.file_name().to_str()?)))
        .filter(|key| key != FORWARD_V6)
        .filter_map(|key| Some((key.clone(), read(&key).ok()??)))
        .collect()
}

/// The value; none if there is no such setting.
fn read(key: &str) -> Result<Option<String>, SysctlError> {
    match fs::read_to_string(file(key)?) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SysctlError::Access { what: "read", key: key.to_owned(), source }),
    }
}

/// Sets the value, if there is such a setting.
fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    match fs::OpenOptions::new().write(true).open(file(key)?).and_then(|file| write_once(&file, value)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| SysctlError::Access { what: "set", key: key.to_owned(), source }),
    }
}

/// A setting takes its value in one piece.
fn write_once(mut file: &fs::File, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut file, value.as_bytes())
}

fn file(key: &str) -> Result<PathBuf, SysctlError> {
    let path = Path::new(key);
    if key.is_empty() || !path.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(SysctlError::Key(key.to_owned()));
    }
    Ok(Path::new(PROC_SYS).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_out_of_proc_sys() {
        for key in ["", "/etc/passwd", "../../etc/passwd", "net/../../../etc/passwd"] {
            assert!(matches!(file(key), Err(SysctlError::Key(_))), "{key}");
        }
        assert!(file("net/ipv4/conf/eth0.5/rp_filter").is_ok());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sysctl.json");
        fs::write(&path, "[{").unwrap();
        assert!(matches!(Saved::load(&path), Err(SysctlError::File { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"[{");
    }
}
