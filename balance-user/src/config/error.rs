//! What can be wrong with a configuration, and how it is shown.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {}", path.display(), why_unreadable(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The firewall's own rules cannot be read.
    #[error("{}: {source}: `rules` of [firewall] leads here", path.display())]
    Rules {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something that is wrong.
    #[error(transparent)]
    Wrong(Fault),
}

/// Something wrong at one place of the file. Its [`Display`](fmt::Display) shows the line with the place underlined:
///
/// ```text
/// balance.toml:7:10: weight must be between 1 and 1000
///   |
/// 7 | weight = 0
///   |          ^
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
    /// The line as it is in the file.
    shown: String,
    /// How many characters are underlined; at least one.
    width: usize,
}

impl ConfigError {
    /// The place and what is wrong with it; none if a file could not even be read.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Read { .. } | Self::Rules { .. } => None,
            Self::Wrong(fault) => Some(fault),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message, shown, width, .. } = self;
        let gutter = " ".repeat(line.to_string().len());
        // A tab stays a tab above and below, so that the caret stands right however wide it is shown.
        let before: String = shown
            .chars()
            .take(column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "{}:{line}:{column}: {message}", self.path.display())?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {}", printable(shown))?;
        write!(f, "{gutter} | {before}{}", "^".repeat(*width))
    }
}

/// Something wrong with a text, before it is known which file it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The bytes it is about; may be empty or reach past the end.
    pub(crate) span: Range<usize>,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Problem {
    /// A problem with these bytes.
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }

    /// The error that shows this problem of `text`.
    pub(crate) fn locate(self, text: &str, path: &Path) -> ConfigError {
        let start = text.floor_char_boundary(self.span.start);
        let (above, rest) = text.split_at(start);
        let (before, rest) = above.rsplit_once('\n').map_or((above, rest), |(_, before)| (before, rest));
        let after = rest.split('\n').next().unwrap_or_default();
        // A byte order mark is no part of the first line, nor is a carriage return of any.
        let shown = format!("{before}{after}");
        let shown = shown.trim_start_matches('\u{feff}').trim_end_matches('\r');
        let length = shown.chars().count();
        let column = before.trim_start_matches('\u{feff}').chars().count().min(length) + 1;
        let end = text.floor_char_boundary(self.span.end);
        let spanned = text.get(start..end).map_or(0, |spanned| spanned.chars().count());
        ConfigError::Wrong(Fault {
            path: path.to_owned(),
            line: above.matches('\n').count() + 1,
            column,
            message: self.message,
            width: spanned.min((length + 1).saturating_sub(column)).max(1),
            shown: shown.to_owned(),
        })
    }
}

/// Reads a whole file, which must be UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    utf8(bytes, path)
}

/// What was read from a file as text, which must be UTF-8.
pub(crate) fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = "this is not UTF-8 text: save the file as UTF-8";
        Problem::new(at..at, message).locate(&String::from_utf8_lossy(error.as_bytes()), path)
    })
}

/// A line as a terminal may see it: control characters could move the cursor or worse.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn why_unreadable(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; write one (see docs/configuration.md) or name another".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied; run this as root".to_owned(),
        _ => format!("cannot be read: {source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        Problem::new(span, "wrong").locate(text, Path::new("f")).to_string()
    }

    #[test]
    fn the_caret_stands_under_the_first_character_and_the_line_under_the_rest() {
        assert_eq!(shown("a = 1\nb = 22\n", 10..12), "f:2:5: wrong\n  |\n2 | b = 22\n  |     ^^");
    }

    #[test]
    fn tabs_stay_tabs_and_characters_count_once_however_many_bytes_they_have() {
        assert_eq!(shown("\té = x", 6..7), "f:1:6: wrong\n  |\n1 | \té = x\n  | \t    ^");
    }

    #[test]
    fn carriage_returns_and_byte_order_marks_are_not_shown_or_counted() {
        assert_eq!(shown("\u{feff}ab\r\ncd\r\n", 3..4), "f:1:1: wrong\n  |\n1 | ab\n  | ^");
        assert_eq!(shown("ab\r\ncd\r\n", 6..8), "f:2:3: wrong\n  |\n2 | cd\n  |   ^");
    }

    #[test]
    fn the_gutter_is_as_wide_as_the_line_number() {
        assert_eq!(shown(&"\n".repeat(99), 99..99), "f:100:1: wrong\n    |\n100 | \n    | ^");
    }

    #[test]
    fn a_place_past_the_end_or_inside_a_character_is_moved_to_where_one_can_point() {
        assert_eq!(shown("a", 7..9), "f:1:2: wrong\n  |\n1 | a\n  |  ^");
        assert_eq!(shown("é", 1..2), "f:1:1: wrong\n  |\n1 | é\n  | ^");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!shown("a\u{1b}[2Jb", 0..1).contains('\u{1b}'));
    }
}
