//! What the tool that makes .rpm files must be told.

use std::{fmt::Write as _, path::Path};

use super::tree::Tree;

/// The files, and where they go; with the sample as the config, which upgrades leave alone once it has been changed.
pub(crate) fn assets(tree: &Tree) -> String {
    let mut text = "assets = [\n".to_owned();
    for (path, mode) in tree.files() {
        asset(&mut text, &tree.folder().join(path), &destination(path), mode, "");
    }
    let sample = Path::new("dist/balance.toml");
    asset(&mut text, sample, "/etc/balance/balance.toml", 0o644, ", config = \"noreplace\"");
    text.push_str("]\n");
    text
}

fn asset(text: &mut String, source: &Path, destination: &str, mode: u32, rest: &str) {
    let source = source.display();
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "  {{ source = \"{source}\", dest = \"{destination}\", mode = \"{mode:o}\"{rest} }},");
}

/// Where zsh of these distributions looks for completions is elsewhere than on Debian.
fn destination(path: &Path) -> String {
    format!("/{}", path.display()).replace("zsh/vendor-completions", "zsh/site-functions")
}
