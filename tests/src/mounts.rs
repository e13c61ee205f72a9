//! What a host sees of the file system: what the daemon writes to is its own, the rest is everybody's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};

/// Makes the mounts of the calling thread's new mount namespace private, and puts an empty `/run` and `/var/lib`, an empty bpffs and
/// a copy of `/etc/iproute2` in place.
pub(crate) fn make_private() -> anyhow::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts private")?;
    cover("tmpfs", "/run")?;
    cover("bpf", "/sys/fs/bpf")?;
    // Where the history of events is.
    cover("tmpfs", "/var/lib")?;
    // Not the scripts of the machine that runs the lab.
    if Path::new("/etc/balance").is_dir() {
        cover("tmpfs", "/etc/balance")?;
    }
    let names = Path::new("/etc/iproute2");
    if names.is_dir() {
        let files = read_tree(names).context("cannot read /etc/iproute2")?;
        cover("tmpfs", "/etc/iproute2")?;
        for (path, content) in files {
            write(&path, &content).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Every file below a directory with its content, sorted by path; none if there is no such directory.
pub(crate) fn read_tree(directory: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for path in list_tree(directory)? {
        let content = fs::read(&path)?;
        files.push((path, content));
    }
    Ok(files)
}

/// The path of everything below a directory that is not a directory, sorted; none if there is no such directory.
pub(crate) fn list_tree(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn cover(kind: &str, path: &str) -> anyhow::Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a {kind} on {path}"))
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)
}
