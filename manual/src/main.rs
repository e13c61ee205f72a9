//! Writes the manual pages and completions, or the reference of the commands. `cargo xtask manual` runs it.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, reference] = arguments.as_slice() else {
        bail!("usage: balance-manual FOLDER REFERENCE");
    };
    for file in balance_manual::manual_pages()?.into_iter().chain(balance_manual::completions()) {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, file.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(reference, balance_manual::reference())
        .with_context(|| format!("cannot write {}", reference.display()))
}
