//! What an eBPF object is made from, as one hash, and the record of it that lies beside the object.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// An eBPF object that is committed, with a record of what it was built from beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// The package, and the program of it, that becomes the object.
    pub(crate) package: &'static str,
    /// The folders of the packages of the workspace that go into it.
    folders: &'static [&'static str],
    /// Where it is kept.
    folder: &'static str,
    /// Its name there.
    pub(crate) name: &'static str,
}

/// What is embedded into the daemon.
const DAEMON: Object = Object {
    package: "balance-ebpf",
    folders: &["balance-ebpf", "balance-common"],
    folder: "balance-ebpf/prebuilt",
    name: "balance.bpf.o",
};
/// Every object.
pub(crate) const OBJECTS: [Object; 2] = [
    DAEMON,
    Object {
        package: "balance-bench-ebpf",
        folders: &["bench/ebpf"],
        folder: "bench/prebuilt",
        name: "traffic.bpf.o",
    },
];

impl Object {
    /// Where it is, below the workspace.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.folder, self.name)
    }

    fn record(&self) -> String {
        format!("{}/sources.sha256", self.folder)
    }
}

const RECORD_HEADER: &str =
    "# Written by `cargo xtask build-ebpf`: the sources and the object built from them.";

/// Everything that decides the bytes of an object or a package, by name. Two of these with the same names and contents have
/// the same hash, in whatever order they were filled.
#[derive(Default)]
pub(crate) struct Inputs(BTreeMap<String, Vec<u8>>);

impl Inputs {
    /// The inputs of an object found in the workspace in `root`, and `recipe`: what the builder itself decides (flags,
    /// tools).
    pub(crate) fn collect(root: &Path, object: &Object, recipe: &[&str]) -> Result<Self> {
        let mut inputs = Self::default();
        inputs.add("recipe", recipe.join("\n"));
        inputs.add("rust-toolchain.toml", read(&root.join("rust-toolchain.toml"))?);
        for folder in object.folders {
            let manifest = format!("{folder}/Cargo.toml");
            inputs.add(manifest.as_str(), read(&root.join(&manifest))?);
            for path in rust_files_below(&root.join(folder).join("src"))? {
                let name = path.strip_prefix(root).context("a source outside the workspace")?;
                inputs.add(name.to_string_lossy(), read(&path)?);
            }
        }
        let packages = locked_packages(&read_toml(&root.join("Cargo.lock"))?, object.package);
        inputs.add_workspace_settings(&read_toml(&root.join("Cargo.toml"))?, packages.keys());
        for (name, locked) in &packages {
            inputs.add(format!("Cargo.lock {name}"), locked.as_str());
        }
        Ok(inputs)
    }

    /// The hash, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, content) in &self.0 {
            // The lengths keep a name from being taken for content and the other way round.
            for part in [name.as_bytes(), content] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hex(&hasher.finalize())
    }

    /// Adds one.
    pub(crate) fn add(&mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), content.into());
    }

    /// The parts of the workspace's manifest that reach the compiler; the rest may change freely.
    fn add_workspace_settings<'a>(
        &mut self,
        manifest: &toml::Table,
        packages: impl Iterator<Item = &'a String>,
    ) {
        let settings = [vec!["profile", "ebpf"], vec!["profile", "release"]]
            .into_iter()
            .chain(["edition", "version"].map(|key| vec!["workspace", "package", key]))
            .chain(packages.map(|package| vec!["workspace", "dependencies", package]));
        for keys in settings {
            if let Some(value) = lookup(manifest, &keys) {
                // Key by key, because the order within a table depends on features of the TOML parser.
                match value {
                    toml::Value::Table(table) => table
                        .iter()
                        .for_each(|(key, value)| self.add(setting_name(&keys, key), value.to_string())),
                    value => self.add(setting_name(&keys, ""), value.to_string()),
                }
            }
        }
    }
}

/// The record of a build: which sources gave which object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// [`Inputs::hash`] of the sources.
    pub(crate) sources: String,
    /// SHA-256 of the object.
    pub(crate) object: String,
}

impl Record {
    /// The record of an object with these bytes, built from sources with this hash.
    pub(crate) fn new(sources: String, object: &[u8]) -> Self {
        Self { sources, object: hex(&Sha256::digest(object)) }
    }

    /// Whether the committed object is there, unchanged, and was built from sources with this hash. `root` is the
    /// workspace.
    pub(crate) fn is_current(root: &Path, object: &Object, sources: &str) -> bool {
        let text = fs::read_to_string(root.join(object.record()));
        let (Ok(text), Ok(bytes)) = (text, fs::read(root.join(object.path()))) else {
            return false;
        };
        Self::parse(&text, object) == Some(Self::new(sources.to_owned(), &bytes))
    }

    /// Writes the object's bytes and its record into the workspace in `root`.
    pub(crate) fn write(&self, root: &Path, object: &Object, bytes: &[u8]) -> Result<()> {
        let folder = root.join(object.folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let record = self.to_text(object);
        for (path, content) in [(object.path(), bytes), (object.record(), record.as_bytes())] {
            fs::write(root.join(&path), content).with_context(|| format!("cannot write {path}"))?;
        }
        Ok(())
    }

    fn to_text(&self, object: &Object) -> String {
        format!("{RECORD_HEADER}\n{}  sources\n{}  {}\n", self.sources, self.object, object.name)
    }

    fn parse(text: &str, object: &Object) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_suffix(name))?;
            line.strip_suffix("  ").map(str::to_owned)
        };
        Some(Self { sources: value("sources")?, object: value(object.name)? })
    }
}

/// The file as TOML.
pub(crate) fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

/// Version and checksum of each locked package that is compiled into the object of `package`: what that names
/// directly, and the eBPF crates below that. Others could only reach the object through one of these, and then
/// `cargo xtask build-ebpf --check` tells.
fn locked_packages(lock: &toml::Table, package: &str) -> BTreeMap<String, String> {
    let text = |package: &toml::Value, key| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let packages = lock.get("package").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let direct: Vec<String> = packages
        .iter()
        .filter(|locked| text(locked, "name").as_deref() == Some(package))
        .filter_map(|package| package.get("dependencies")?.as_array())
        .flatten()
        // "name", or "name version" where several versions are locked.
        .filter_map(|dependency| dependency.as_str()?.split(' ').next().map(str::to_owned))
        .collect();
    let mut locked = BTreeMap::new();
    for package in packages {
        // What has no checksum is a member of the workspace, and hashed by its files.
        let (Some(name), Some(version), Some(checksum)) =
            (text(package, "name"), text(package, "version"), text(package, "checksum"))
        else {
            continue;
        };
        if name.contains("ebpf") || direct.contains(&name) {
            let entry: &mut String = locked.entry(name).or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(entry, "{version} {checksum}");
        }
    }
    locked
}

fn setting_name(keys: &[&str], key: &str) -> String {
    format!("Cargo.toml {} {key}", keys.join("."))
}

fn lookup<'a>(table: &'a toml::Table, keys: &[&str]) -> Option<&'a toml::Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

/// Every source file; what an editor leaves beside them is none.
fn rust_files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            files.extend(rust_files_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A workspace with the few files that are hashed.
    fn workspace() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.2.3\"\n"),
            (
                "Cargo.toml",
                "[workspace.package]\nversion = \"1.0.0\"\n[workspace.dependencies]\naya-ebpf = \"1\"\ntokio = \"1\"\n\
                 [profile.ebpf]\nlto = true\n",
            ),
            (
                "Cargo.lock",
                "[[package]]\nname = \"aya-ebpf\"\nversion = \"1.1.0\"\nchecksum = \"aa\"\n\
                 [[package]]\nname = \"balance-ebpf\"\nversion = \"1.0.0\"\ndependencies = [\"aya-ebpf\", \"direct 2.0.0\"]\n\
                 [[package]]\nname = \"direct\"\nversion = \"2.0.0\"\nchecksum = \"bb\"\n\
                 [[package]]\nname = \"tokio\"\nversion = \"1.9.0\"\nchecksum = \"cc\"\n",
            ),
            ("balance-ebpf/Cargo.toml", "[package]\nname = \"balance-ebpf\"\n"),
            ("balance-ebpf/src/main.rs", "fn main() {}\n"),
            ("balance-common/Cargo.toml", "[package]\nname = \"balance-common\"\n"),
            ("balance-common/src/lib.rs", "mod inner;\n"),
            ("balance-common/src/inner/mod.rs", "\n"),
        ] {
            write(folder.path(), path, content);
        }
        folder
    }

    fn write(root: &Path, path: &str, content: &str) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    }

    fn hash(root: &Path) -> String {
        Inputs::collect(root, &DAEMON, &["flag"]).unwrap().hash()
    }

    /// The hash before and after `from` becomes `to` in a file.
    fn hashes_around_edit(path: &str, from: &str, to: &str) -> (String, String) {
        let folder = workspace();
        let before = hash(folder.path());
        let text = fs::read_to_string(folder.path().join(path)).unwrap();
        assert!(text.contains(from));
        write(folder.path(), path, &text.replace(from, to));
        (before, hash(folder.path()))
    }

    #[test]
    fn the_order_of_inputs_does_not_matter() {
        let parts = [("a", "1"), ("b", "2"), ("c", "3")];
        let fill = |order: &[usize]| {
            let mut inputs = Inputs::default();
            for &index in order {
                inputs.add(parts[index].0, parts[index].1);
            }
            inputs.hash()
        };
        assert_eq!(fill(&[0, 1, 2]), fill(&[2, 0, 1]));
    }

    #[test]
    fn what_moves_between_name_and_content_or_between_inputs_is_noticed() {
        let hash_of = |parts: &[(&str, &str)]| {
            let mut inputs = Inputs::default();
            for (name, content) in parts {
                inputs.add(*name, *content);
            }
            inputs.hash()
        };
        assert_ne!(hash_of(&[("ab", "c")]), hash_of(&[("a", "bc")]));
        assert_ne!(hash_of(&[("a", "1b2")]), hash_of(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn the_folder_of_the_workspace_does_not_matter() {
        assert_eq!(hash(workspace().path()), hash(workspace().path()));
    }

    #[test]
    fn everything_that_reaches_the_object_changes_the_hash() {
        for (path, from, to) in [
            ("rust-toolchain.toml", "1.2.3", "1.2.4"),
            ("Cargo.toml", "lto = true", "lto = false"),
            ("Cargo.toml", "version = \"1.0.0\"", "version = \"1.0.1\""),
            ("Cargo.toml", "aya-ebpf = \"1\"", "aya-ebpf = \"1.1\""),
            ("Cargo.lock", "1.1.0", "1.1.1"),
            ("Cargo.lock", "\"bb\"", "\"bc\""),
            ("balance-ebpf/Cargo.toml", "balance", "Balance"),
            ("balance-ebpf/src/main.rs", "main", "entry"),
            ("balance-common/Cargo.toml", "balance", "Balance"),
            ("balance-common/src/inner/mod.rs", "\n", "\n\n"),
        ] {
            let (before, after) = hashes_around_edit(path, from, to);
            assert_ne!(before, after, "{from} -> {to} in {path} went unnoticed");
        }
    }

    #[test]
    fn a_new_or_renamed_source_changes_the_hash() {
        let folder = workspace();
        let before = hash(folder.path());
        write(folder.path(), "balance-ebpf/src/maps.rs", "");
        let with_maps = hash(folder.path());
        fs::rename(
            folder.path().join("balance-ebpf/src/maps.rs"),
            folder.path().join("balance-ebpf/src/m.rs"),
        )
        .unwrap();
        let renamed = hash(folder.path());
        assert!(before != with_maps && with_maps != renamed && before != renamed);
    }

    #[test]
    fn what_an_editor_leaves_behind_does_not_change_the_hash() {
        let folder = workspace();
        let before = hash(folder.path());
        write(folder.path(), "balance-ebpf/src/main.rs~", "");
        assert_eq!(before, hash(folder.path()));
    }

    #[test]
    fn another_flag_changes_the_hash() {
        let folder = workspace();
        let hash_with = |recipe: &[&str]| Inputs::collect(folder.path(), &DAEMON, recipe).unwrap().hash();
        assert_ne!(hash_with(&["a"]), hash_with(&["a", "b"]));
    }

    #[test]
    fn what_only_the_daemon_uses_does_not_change_the_hash() {
        for (path, from, to) in
            [("Cargo.lock", "1.9.0", "1.9.1"), ("Cargo.toml", "tokio = \"1\"", "tokio = \"1.9\"")]
        {
            let (before, after) = hashes_around_edit(path, from, to);
            assert_eq!(before, after, "{from} -> {to} in {path}");
        }
    }

    #[test]
    fn a_record_is_current_until_sources_or_object_change() {
        let folder = workspace();
        let root = folder.path();
        assert!(!Record::is_current(root, &DAEMON, "00"), "nothing recorded yet");
        Record::new("00".to_owned(), b"object").write(root, &DAEMON, b"object").unwrap();
        assert!(Record::is_current(root, &DAEMON, "00"));
        assert!(!Record::is_current(root, &DAEMON, "01"), "other sources");
        write(root, &DAEMON.path(), "another object");
        assert!(!Record::is_current(root, &DAEMON, "00"), "the object was changed by hand");
    }
}
