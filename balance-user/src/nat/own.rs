//! Own rules: what stands in files becomes part of our table.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::OwnRules;

const BEGIN: &str = "# own rules of ";
const END: &str = "# end of own rules";

/// The chains that own rules go into, and the files. Lines of a file begin where they begin there, so that
/// what nft says of one holds.
pub(super) fn inlined(files: &[OwnRules]) -> String {
    let mut text = String::from(
        r#"	chain own_input {
		comment "Own rules for what comes to this machine."
	}
	chain own_forward {
		comment "Own rules for what goes through this machine."
	}
"#,
    );
    for OwnRules { path, text: rules } in files {
        // Writing to a String cannot fail.
        let _ = write!(text, "{BEGIN}{}\n{}\n{END}\n", shown(path), rules.trim_end_matches('\n'));
    }
    text
}

/// What nft has said of a script, with the places that are in own rules by file and line instead of by the line of the script.
pub(super) fn located(script: &str, said: &str) -> String {
    said.split_inclusive('\n').map(|line| locate(script, line).unwrap_or_else(|| line.to_owned())).collect()
}

fn locate(script: &str, line: &str) -> Option<String> {
    // As in `/dev/stdin:57:3-9: Error: ...`.
    let (number, rest) = line.strip_prefix("/dev/stdin:")?.split_once(':')?;
    let number: usize = number.parse().ok()?;
    let above: Vec<&str> = script.lines().take(number.checked_sub(1)?).collect();
    let (begin, file) =
        above.iter().enumerate().rev().find_map(|(index, line)| Some((index, line.strip_prefix(BEGIN)?)))?;
    let ended = above.iter().skip(begin).any(|line| *line == END);
    (!ended).then(|| format!("{file}:{}:{rest}", number - 1 - begin))
}

/// A path in one line.
fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_own_rules_name_the_file_and_its_line_and_others_stay() {
        let file = |path: &str, text: &str| OwnRules { path: path.into(), text: text.to_owned() };
        let script = format!(
            "table inet t {{\n{}}}\n",
            inlined(&[file("/a.nft", "one\ntwo\n"), file("/b\n.nft", "three")])
        );
        let line = |text: &str| 1 + script.lines().position(|line| line == text).unwrap();
        let said =
            |number: usize| located(&script, &format!("/dev/stdin:{number}:3-5: Error: no\nshown\n  ^^^\n"));
        assert_eq!(said(line("one")), "/a.nft:1:3-5: Error: no\nshown\n  ^^^\n");
        assert_eq!(said(line("two")), "/a.nft:2:3-5: Error: no\nshown\n  ^^^\n");
        assert_eq!(said(line("three")), "/b\u{fffd}.nft:1:3-5: Error: no\nshown\n  ^^^\n");
        for other in [1, line("}"), 0, 1000] {
            assert!(said(other).starts_with(&format!("/dev/stdin:{other}:3-5: ")), "{other}");
        }
        assert_eq!(located(&script, "/dev/stdin: nothing\n"), "/dev/stdin: nothing\n");
    }
}
