//! What is installed, and where: one folder that is like `/`, of which every kind of package is made.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::NAME;
use crate::{command, sources::Inputs};

/// What goes from `dist/` to a place of its own; other files there are for people to copy.
const UNIT: &str = "balance.service";
const SYSUSERS: &str = "sysusers.conf";
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// A folder that is like `/`.
pub(crate) struct Tree {
    folder: PathBuf,
    /// The files in it, by their paths below it.
    files: Vec<PathBuf>,
}

impl Tree {
    /// Lays it out anew. `program` is the program, `manual` the folder of manual pages and completions.
    pub(crate) fn lay_out(folder: &Path, program: &Path, manual: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let mut tree = Self { folder: folder.to_owned(), files: Vec::new() };
        tree.add("usr/bin/balance-user", &read(program)?, PROGRAM_MODE)?;
        let unit = fs::read_to_string(Path::new("dist").join(UNIT)).context("cannot read the unit")?;
        tree.add("usr/lib/systemd/system/balance.service", unit.as_bytes(), FILE_MODE)?;
        tree.add("usr/lib/systemd/system/balance@.service", template(&unit)?.as_bytes(), FILE_MODE)?;
        let sysusers = read(&Path::new("dist").join(SYSUSERS))?;
        tree.add("usr/lib/sysusers.d/balance.conf", &sysusers, FILE_MODE)?;
        for file in files_below(manual)? {
            let path = Path::new("usr/share").join(file.strip_prefix(manual)?);
            tree.add(path, &read(&file)?, FILE_MODE)?;
        }
        tree.compress_manual()?;
        let doc = Path::new("usr/share/doc").join(NAME);
        for name in ["README.md", "ARCHITECTURE.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL"] {
            tree.add(doc.join(name), &read(Path::new(name))?, FILE_MODE)?;
        }
        for file in files_below(Path::new("docs"))? {
            tree.add(doc.join(&file), &read(&file)?, FILE_MODE)?;
        }
        for entry in fs::read_dir("dist").context("cannot list dist")? {
            let path = entry?.path();
            let name = path.file_name().context("a file without a name")?;
            if path.is_file() && name != UNIT && name != SYSUSERS {
                // Not with the documentation, which may be left out, while the sample must be there.
                tree.add(Path::new("usr/share").join(NAME).join(name), &read(&path)?, FILE_MODE)?;
            }
        }
        tree.files.sort();
        Ok(tree)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files, by their paths below it, with their modes.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, u32)> {
        self.files.iter().map(|path| {
            let mode = if path.starts_with("usr/bin") { PROGRAM_MODE } else { FILE_MODE };
            (path.as_path(), mode)
        })
    }

    /// Adds all that is in it to what decides a package.
    pub(crate) fn add_to(&self, inputs: &mut Inputs) -> Result<()> {
        for path in &self.files {
            inputs.add(path.to_string_lossy(), read(&self.folder.join(path))?);
        }
        Ok(())
    }

    fn add(&mut self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let whole = self.folder.join(path);
        let parent = whole.parent().context("a file without a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&whole, content).with_context(|| format!("cannot write {}", whole.display()))?;
        fs::set_permissions(&whole, fs::Permissions::from_mode(mode))?;
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Manual pages are compressed wherever they are installed.
    fn compress_manual(&mut self) -> Result<()> {
        let is_page = |path: &PathBuf| path.starts_with("usr/share/man");
        let pages = self.files.iter().filter(|path| is_page(path)).map(|path| self.folder.join(path));
        // Without a time in it, so that the same pages are the same bytes.
        command::run(Command::new("gzip").args(["-9", "--no-name"]).args(pages))?;
        for path in self.files.iter_mut().filter(|path| is_page(path)) {
            path.as_mut_os_string().push(".gz");
        }
        Ok(())
    }
}

/// The unit of further instances, each with a config of its own: `balance@guests` has `/etc/balance/guests.toml`.
fn template(unit: &str) -> Result<String> {
    let mut text = unit.to_owned();
    for (one, any) in [
        (
            "# balance.service: the daemon of balance.",
            "# balance@.service: the daemon of a further instance of balance.",
        ),
        ("balance-user stop`", "balance-user --instance NAME stop`"),
        ("systemctl edit balance`", "systemctl edit balance@NAME`"),
        ("internet connections\n", "internet connections (%i)\n"),
        ("balance-user run\n", "balance-user run --instance %i --config /etc/balance/%i.toml\n"),
        ("balance-user check\n", "balance-user check /etc/balance/%i.toml\n"),
    ] {
        text.contains(one).then_some(()).with_context(|| format!("the unit has no `{}`", one.trim()))?;
        text = text.replace(one, any);
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_runs_instances_with_configs_of_their_own() {
        let text = template(include_str!("../../../dist/balance.service")).unwrap();
        assert!(
            text.contains(
                "\nExecStart=/usr/bin/balance-user run --instance %i --config /etc/balance/%i.toml\n"
            )
        );
        assert!(text.contains("\nExecReload=/usr/bin/balance-user check /etc/balance/%i.toml\n"));
        assert!(template("[Service]\nExecStart=/bin/true\n").is_err());
    }
}
