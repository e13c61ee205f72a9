//! The documentation says what the program does: all of it, and nothing else.
#![cfg(test)]

mod commands;
mod keys;
mod named_tests;

use std::path::PathBuf;

/// The text of the manual page of that name, such as `balance.toml.5`, without what tells `man` how to set it.
fn manual_page(name: &str) -> String {
    let pages = balance_manual::manual_pages().unwrap();
    let page = pages.iter().find(|page| page.path.file_name().is_some_and(|file| file == name));
    let text =
        String::from_utf8(page.unwrap_or_else(|| panic!("no manual page {name}")).text.clone()).unwrap();
    let mut words = text.replace("\\-", "-").replace("\\*(Aq", "'");
    for face in ["\\fB", "\\fI", "\\fR"] {
        words = words.replace(face, "");
    }
    words
}

/// The folder of the whole project.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
