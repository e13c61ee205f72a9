//! Scripts of the administrator that belong to balancing: executable files in folders, run one after the other in the order of
//! their names, each with a time limit. Whatever they do, balancing goes on.

mod process;
mod trust;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use std::{fmt, fs, io};

use futures::future::join_all;
use serde::{Deserialize, Serialize};

/// When scripts are run; each stage has a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before balancing begins.
    PreRun,
    /// When routes and rules are in place.
    Routes,
    /// Then, for the firewall.
    Firewall,
    /// At last.
    PostRun,
    /// When `stop` has put everything back.
    PostStop,
}

impl Stage {
    /// Everything that follows upon a start or a reload.
    pub const AFTER: [Self; 3] = [Self::Routes, Self::Firewall, Self::PostRun];

    const fn folder(self) -> &'static str {
        match self {
            Self::PreRun => "pre-run.d",
            Self::Routes => "routes.d",
            Self::Firewall => "firewall.d",
            Self::PostRun => "post-run.d",
            Self::PostStop => "post-stop.d",
        }
    }
}

/// Why scripts are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The daemon has started.
    Start,
    /// It has read its config again.
    Reload,
    /// Everything has been put back.
    Stop,
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Stop => "stop",
        })
    }
}

/// Where scripts are and how to run them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The folder above those of the stages.
    pub folder: PathBuf,
    /// How long each script may take.
    pub timeout: Duration,
    /// Variables of their environment. They have no others but `PATH`.
    pub environment: BTreeMap<String, String>,
}

impl Call {
    /// The same for another occasion, which becomes a variable.
    #[must_use]
    pub fn on(mut self, occasion: Occasion) -> Self {
        self.environment.insert("BALANCE_EVENT".to_owned(), occasion.to_string());
        self
    }

    /// Keeps it in a file, for [`Call::load`].
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }

    /// What a file has kept; none if there is no file.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why a script has not done its work.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Somebody other than root could have written it.
    #[error("not run: {0}")]
    Untrusted(String),
    /// It, or its folder, cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It could not be started.
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It said that it has failed.
    #[error("failed: {0}")]
    Failed(ExitStatus),
    /// It took too long and was killed, with all that it had started.
    #[error("killed after {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
}

/// Runs scripts, never two at the same time, and knows which have failed.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    turn: Arc<tokio::sync::Mutex<()>>,
    failures: Arc<std::sync::Mutex<BTreeMap<PathBuf, String>>>,
}

impl Scripts {
    /// Runs all scripts of these stages, one after the other, also after one has failed. What they print and how they
    /// fail is logged.
    pub async fn run(&self, call: &Call, stages: &[Stage]) {
        let _turn = self.turn.lock().await;
        for stage in stages {
            let folder = call.folder.join(stage.folder());
            self.forget(&folder);
            match find(&folder) {
                Ok(scripts) => {
                    for script in scripts {
                        let result = match trust::check(&script) {
                            Ok(()) => process::run(&script, call, &[]).await,
                            Err(error) => Err(error),
                        };
                        self.take(&script, result);
                    }
                }
                Err(error) => self.take(&folder, Err(error)),
            }
        }
    }

    /// The same in the background.
    pub fn start(&self, call: Call, stages: impl Into<Vec<Stage>>) {
        let (scripts, stages) = (self.clone(), stages.into());
        tokio::spawn(async move { scripts.run(&call, &stages).await });
    }

    /// Runs all scripts of these folders at the same time, with these arguments, and waits for them: hooks, which have
    /// nothing to do with each other.
    pub async fn run_together(&self, call: &Call, folders: &[String], arguments: &[String]) {
        let mut hooks = Vec::new();
        for folder in folders.iter().map(|folder| call.folder.join(folder)) {
            self.forget(&folder);
            match find(&folder) {
                Ok(found) => hooks.extend(found),
                Err(error) => self.take(&folder, Err(error)),
            }
        }
        let runs = hooks.iter().map(|hook| async move {
            let result = match trust::check(hook) {
                Ok(()) => process::run(hook, call, arguments).await,
                Err(error) => Err(error),
            };
            self.take(hook, result);
        });
        join_all(runs).await;
    }

    /// What has failed when its folder was run last, a line each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(script, why)| format!("{} {why}", script.display())).collect()
    }

    fn forget(&self, folder: &Path) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|script, _| !script.starts_with(folder));
    }

    fn take(&self, script: &Path, result: Result<(), ScriptError>) {
        let Err(error) = result else { return };
        tracing::error!("{} {error}", script.display());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.insert(script.to_owned(), error.to_string());
    }
}

/// The scripts of a folder in the order of their names; none if there is no folder.
fn find(folder: &Path) -> Result<Vec<PathBuf>, ScriptError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ScriptError::Unreadable(error)),
    };
    trust::check(folder)?;
    let names: Result<Vec<OsString>, io::Error> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(ScriptError::Unreadable)?;
    names.retain(|name| is_meant(name.as_bytes()));
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).filter(|path| is_executable(path)).collect())
}

/// Not what editors and package managers leave behind, nor rules for nft, which share a folder with scripts.
fn is_meant(name: &[u8]) -> bool {
    let leftovers: [&[u8]; 7] = [b"~", b".bak", b".orig", b".swp", b".rpmnew", b".rpmsave", b".nft"];
    let is_leftover = leftovers.iter().any(|end| name.ends_with(end));
    !is_leftover && !name.starts_with(b".") && !name.windows(6).any(|part| part == b".dpkg-")
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
