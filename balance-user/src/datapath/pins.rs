//! Where maps and links are pinned, so that they outlive the daemon.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use aya_obj::maps::PinningType;
use balance_common::layout::ABI;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{DatapathError, OBJECT, io_error};

const BPFFS: &str = "/sys/fs/bpf";

/// The folder of an instance's pins: `/sys/fs/bpf/balance/<instance>/v<ABI>`.
#[derive(Clone, Debug)]
pub struct Pins {
    folder: PathBuf,
}

/// The instances that have pins, by name.
#[must_use]
pub fn instances() -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(BPFFS).join("balance")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

impl Pins {
    /// The pins of an instance, which need not exist.
    #[must_use]
    pub fn of(instance: &str) -> Self {
        Self { folder: instance_folder(instance).join(format!("v{ABI}")) }
    }

    /// Are there any?
    #[must_use]
    pub fn exist(&self) -> bool {
        self.map("SETTINGS").exists()
    }

    /// Makes the folders, mounting the BPF file system where it is missing. Pins that an older or newer version
    /// left behind and that do not fit are removed: the kernel's own state keeps the flows where they are.
    pub fn prepare(&self) -> Result<(), DatapathError> {
        mount_bpffs()?;
        if self.exist() && !self.fit() {
            tracing::warn!(folder = %self.folder.display(), "pinned maps have another shape: replacing them");
            remove_tree(&self.folder)?;
        }
        self.remove_other_versions()?;
        fs::create_dir_all(self.links()).map_err(io_error(self.links()))
    }

    /// The folder of the maps.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of the links' pins.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.folder.join("links")
    }

    /// The pin of a program's link to a device.
    #[must_use]
    pub fn link(&self, program: &str, index: u32) -> PathBuf {
        self.links().join(format!("{program}-{index}"))
    }

    /// Removes everything of this instance, and the folders above it that are then empty.
    pub fn remove(&self) -> Result<(), DatapathError> {
        let Some(instance) = self.folder.parent() else { return Ok(()) };
        remove_tree(instance)?;
        if let Some(all) = instance.parent() {
            // Not empty: another instance lives there.
            let _ = fs::remove_dir(all);
        }
        Ok(())
    }

    /// Do the pinned maps have the shape that the object wants? aya would use them unseen.
    fn fit(&self) -> bool {
        let Ok(object) = aya_obj::Object::parse(OBJECT) else { return false };
        // The compiler may add maps of constants; those are not pinned.
        let mut pinned = object.maps.iter().filter(|(_, map)| map.pinning() == PinningType::ByName);
        pinned.all(|(name, wanted)| {
            let info = MapData::from_pin(self.map(name)).and_then(|pinned| pinned.info());
            info.is_ok_and(|info| {
                info.key_size() == wanted.key_size()
                    && info.value_size() == wanted.value_size()
                    && info.max_entries() == wanted.max_entries()
                    && info.map_type().is_ok_and(|kind| kind as u32 == wanted.map_type())
            })
        })
    }

    fn remove_other_versions(&self) -> Result<(), DatapathError> {
        let Some(instance) = self.folder.parent() else { return Ok(()) };
        let Ok(entries) = fs::read_dir(instance) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != self.folder) {
            tracing::info!(folder = %path.display(), "removing the pins of another version");
            remove_tree(&path)?;
        }
        Ok(())
    }
}

fn instance_folder(instance: &str) -> PathBuf {
    Path::new(BPFFS).join("balance").join(instance)
}

fn mount_bpffs() -> Result<(), DatapathError> {
    let path = Path::new(BPFFS);
    if statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(Some("bpffs"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|error| DatapathError::Mount { path: path.into(), source: error.into() })
}

/// Like `fs::remove_dir_all`, which bpffs does not support on every kernel.
fn remove_tree(path: &Path) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path)(error)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(io_error(path))?;
        }
    }
    fs::remove_dir(path).map_err(io_error(path))
}
