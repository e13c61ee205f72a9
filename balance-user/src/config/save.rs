//! Changing the file that people keep, without touching what they wrote around the change.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::{ConfigError, WEIGHTS, error, reader};
use crate::import;

/// Why a weight could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The weight is out of range.
    #[error("weight must be between {} and {}", WEIGHTS.0, WEIGHTS.1)]
    Weight,
    /// The configuration has no such ISP.
    #[error("{}: there is no ISP named {isp}", path.display())]
    NoSuchIsp {
        /// The name looked for.
        isp: String,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read, or is no TOML.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be replaced.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Sets the weight of an ISP in the file, which changes in nothing else: not in its owner, group or mode, not even for
/// a moment to something incomplete. A symbolic link stays one. Two that save at once wait for each other.
pub fn save_weight(path: &Path, isp: &str, weight: u16) -> Result<(), SaveError> {
    let unwritable = |source| SaveError::Write { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let folder = File::open(real.parent().unwrap_or(&real)).map_err(unwritable)?;
    folder.lock().map_err(unwritable)?;
    let text = error::read(&real)?;
    let changed = with_weight(&text, path, isp, weight)?;
    if changed != text {
        replace(&real, &changed).and_then(|()| folder.sync_all()).map_err(unwritable)?;
    }
    Ok(())
}

/// Says what [`save_weight`] would say of the file, but writes nothing.
pub fn check_save(path: &Path, isp: &str, weight: u16) -> Result<(), SaveError> {
    with_weight(&error::read(path)?, path, isp, weight).map(drop)
}

/// The text with the weight of an ISP changed and every other byte kept. Names are compared without regard to case.
pub fn set_weight(text: &str, isp: &str, weight: u16) -> Result<String, SaveError> {
    with_weight(text, Path::new("balance.toml"), isp, weight)
}

fn with_weight(text: &str, path: &Path, isp: &str, weight: u16) -> Result<String, SaveError> {
    if !(WEIGHTS.0..=WEIGHTS.1).contains(&weight) {
        return Err(SaveError::Weight);
    }
    if import::is_nib(text) {
        let message = "this is a config of Net::ISP::Balance: make one of it that can be changed, \
                       with `balance-user import`";
        return Err(Problem::new(0..0, message).locate(text, path).into());
    }
    let document = DeTable::parse(text).map_err(|error| reader::syntax(&error).locate(text, path))?;
    let (place, new) = edit(text, document.get_ref(), isp, weight)
        .ok_or_else(|| SaveError::NoSuchIsp { isp: isp.to_owned(), path: path.to_owned() })?;
    let mut changed = text.to_owned();
    changed.replace_range(place, &new);
    Ok(changed)
}

/// Which bytes to replace by what; none if there is no such ISP.
fn edit(text: &str, document: &DeTable<'_>, isp: &str, weight: u16) -> Option<(Range<usize>, String)> {
    let (table, span) = get(document, "isp")?.1.get_ref().as_array()?.iter().find_map(|element| {
        let table = element.get_ref().as_table()?;
        let name = get(table, "name")?.1.get_ref().as_str()?;
        name.eq_ignore_ascii_case(isp).then_some((table, element.span()))
    })?;
    if let Some((_, old)) = get(table, "weight") {
        return Some((old.span(), weight.to_string()));
    }

    // It goes right behind the name, the one key that is always there.
    let (key, name) = get(table, "name")?;
    let end = name.span().end;
    if text.get(span)?.starts_with('{') {
        return Some((end..end, format!(", weight = {weight}")));
    }
    let (above, _) = text.split_at_checked(key.span().start)?;
    let indent = above.rsplit_once('\n').map_or(above, |(_, indent)| indent);
    let rest = text.get(end..)?;
    let Some(newline) = rest.find('\n') else {
        return Some((text.len()..text.len(), format!("\n{indent}weight = {weight}")));
    };
    let ending = if rest.get(..newline)?.ends_with('\r') { "\r\n" } else { "\n" };
    let place = end + newline + 1;
    Some((place..place, format!("{indent}weight = {weight}{ending}")))
}

fn get<'a, 'i>(
    table: &'a DeTable<'i>,
    key: &str,
) -> Option<(&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    table.iter().find(|(name, _)| name.get_ref() == key)
}

/// Replaces a file at once: whoever reads it finds the old text or the new one, also after a loss of power.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = path.metadata()?;
    let folder = path.parent().unwrap_or(path);
    let mut new = tempfile::Builder::new().prefix(".balance-").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    // After the owner, as changing that may take away bits of the mode.
    new.as_file().set_permissions(old.permissions())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}
