//! Where maps and links are pinned, so that they outlive the daemon.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::util::nr_cpus;
use aya_obj::maps::PinningType;
use balance_common::layout::ABI;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::shape::Shape;
use super::{DatapathError, OBJECT, io_error};

const BPFFS: &str = "/sys/fs/bpf";

/// The map that outlives versions, if its shape stays the same.
const MEMORY: &str = "ISPS";

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

    /// Makes the folders, mounting the BPF file system where it is missing, and sees to it that what is pinned there fits
    /// programs that are loaded with these sizes of maps, by name, instead of those of the object. What another version
    /// left behind is taken over where that is possible. Programs that are attached stay so: they keep the maps they
    /// have, pinned or not.
    pub fn prepare(&self, sizes: &[(&str, u32)]) -> Result<(), DatapathError> {
        mount_bpffs()?;
        fs::create_dir_all(self.links()).map_err(io_error(self.links()))?;
        self.take_over_other_versions()?;
        self.remove_misfits(sizes)
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

    /// The ids of the programs that run by pinned links.
    #[must_use]
    pub fn programs(&self) -> BTreeSet<u32> {
        let links = entries(&self.links()).unwrap_or_default().into_iter();
        let program = |pin| FdLink::from(PinnedLink::from_pin(pin).ok()?).info().ok();
        links.filter_map(program).map(|link| link.program_id()).collect()
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

    /// Unpins the maps that have another shape than the object wants, which aya would use unseen, and those that it does
    /// not have. Constants are maps too, but belong to the programs and are not pinned.
    fn remove_misfits(&self, sizes: &[(&str, u32)]) -> Result<(), DatapathError> {
        // An object that cannot be read will not be loaded either.
        let Ok(object) = aya_obj::Object::parse(OBJECT) else { return Ok(()) };
        let cpus = nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1);
        for path in entries(&self.folder)?.into_iter().filter(|path| !path.is_dir()) {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let wanted =
                object.maps.get(name).filter(|map| map.pinning() == PinningType::ByName).map(|map| {
                    let size = sizes.iter().find(|(sized, _)| *sized == name).map(|&(_, size)| size);
                    Shape::made_of(map, size.unwrap_or(map.max_entries()), cpus)
                });
            let present = MapInfo::from_pin(&path).and_then(|info| Shape::of(&info));
            if wanted.is_none() || present.ok() != wanted {
                tracing::warn!(map = name, "the pinned map has another shape: replacing it");
                fs::remove_file(&path).map_err(io_error(path))?;
            }
        }
        Ok(())
    }

    /// Moves the links of other versions here, whose programs go on until ours take their places, and what those
    /// versions remember of the ISPs: marks of live flows carry the ISPs' ids. The rest of them is removed.
    fn take_over_other_versions(&self) -> Result<(), DatapathError> {
        let Some(instance) = self.folder.parent() else { return Ok(()) };
        for path in entries(instance)?.into_iter().filter(|path| *path != self.folder) {
            tracing::info!(folder = %path.display(), "taking over from another version");
            let other = Self { folder: path };
            let links = entries(&other.links())?.into_iter();
            for pin in links.chain([other.map(MEMORY)]).filter(|pin| pin.exists()) {
                let Ok(inside) = pin.strip_prefix(&other.folder) else { continue };
                let here = self.folder.join(inside);
                if !here.exists() {
                    fs::rename(&pin, &here).map_err(io_error(here))?;
                }
            }
            remove_tree(&other.folder)?;
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
    if !path.exists() {
        return Ok(());
    }
    for path in entries(path)? {
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(io_error(path))?;
        }
    }
    fs::remove_dir(path).map_err(io_error(path))
}

/// What is in a folder; nothing, if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io_error(folder)(error)),
    }
}
