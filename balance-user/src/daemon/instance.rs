//! What belongs to an instance outside the kernel: its folder under `/run`, and the lock in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

/// The files of an instance, in `/run/balance/<instance>/`.
#[derive(Clone, Debug)]
pub struct Instance {
    name: String,
    folder: PathBuf,
}

/// The proof that this process is the instance's only daemon; given up when dropped, also by a crash.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Why a lock was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A daemon has it.
    #[error("instance {instance} is running already{}", pid.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    Held {
        /// The instance.
        instance: String,
        /// The daemon's process id.
        pid: Option<u32>,
    },
    /// The file could not be used.
    #[error("cannot lock {path}: {source}; this needs root")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Instance {
    /// The instance of that name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), folder: PathBuf::from("/run/balance").join(name) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has run since it was stopped last: a daemon makes the folder before anything else.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// What the sysctls were before us.
    #[must_use]
    pub fn sysctls(&self) -> PathBuf {
        self.folder.join("sysctl.json")
    }

    /// How to run scripts when it is stopped.
    #[must_use]
    pub fn scripts(&self) -> PathBuf {
        self.folder.join("scripts.json")
    }

    /// The devices that had no clsact qdisc before us.
    #[must_use]
    pub fn clsact(&self) -> PathBuf {
        self.folder.join("clsact")
    }

    /// Makes this process the only one that changes anything for the instance.
    pub fn lock(&self) -> Result<Lock, LockError> {
        let path = self.lock_file();
        let error = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(&self.folder).map_err(error)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(error)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let write = |file: &mut File| {
                    file.set_len(0)?;
                    file.rewind()?;
                    writeln!(file, "{}", std::process::id())
                };
                write(&mut lock).map_err(error)?;
                Ok(Lock(lock))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(LockError::Held { instance: self.name.clone(), pid: self.pid_in_file() })
            }
            Err((_, errno)) => Err(error(errno.into())),
        }
    }

    /// The daemon's process id, if there is a daemon.
    #[must_use]
    pub fn daemon(&self) -> Option<u32> {
        let file = File::open(self.lock_file()).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => self.pid_in_file(),
        }
    }

    /// Removes the folder, and the one above if this was the last instance.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(parent) = self.folder.parent() {
            // Not empty: another instance lives there.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join("lock")
    }

    fn pid_in_file(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(self.lock_file()).ok()?.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}
