//! What runs as root must be root's.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::ScriptError;

const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a folder with this bit others can put files, but not replace those of root.
const STICKY: u32 = 0o1000;

/// Whether nobody but root can have made or changed a file or folder: that it is, wherever links lead to, root's,
/// and so are all folders above it.
pub(super) fn check(path: &Path) -> Result<(), ScriptError> {
    let real = path.canonicalize().map_err(ScriptError::Unreadable)?;
    for part in real.ancestors() {
        let metadata = part.symlink_metadata().map_err(ScriptError::Unreadable)?;
        let sticky_counts = part != real;
        if let Some(why) = distrust(&metadata, sticky_counts) {
            return Err(ScriptError::Untrusted(format!("{} {why}", part.display())));
        }
    }
    Ok(())
}

fn distrust(metadata: &Metadata, sticky_counts: bool) -> Option<&'static str> {
    let mode = metadata.permissions().mode();
    if metadata.uid() != 0 {
        Some("does not belong to root")
    } else if mode & WRITABLE_BY_OTHERS != 0 && !(sticky_counts && mode & STICKY != 0) {
        Some("can be written by others than root")
    } else {
        None
    }
}
