//! What is said of files that are wrong.

use std::fs;

use balance_user::config::{Config, ConfigError};

use crate::{malformed, parse};

#[test]
fn each_malformed_config_gives_its_error_at_its_place() {
    let cases = malformed::cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| case.0).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
    let mut failures = Vec::new();
    for (name, text, line, fragment) in cases {
        match parse(text) {
            Ok(_) => failures.push(format!("{name}: taken")),
            Err(error) => {
                let fault = error.fault().unwrap();
                let one_line = !fault.message.contains('\n');
                if fault.line != line || !fault.message.contains(fragment) || !one_line {
                    failures.push(format!("{name}: wants line {line} and {fragment:?}:\n{error}"));
                }
                assert_points_into(&error, text);
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The caret stands under a character of its line, or right behind the last.
pub(crate) fn assert_points_into(error: &ConfigError, text: &str) {
    let fault = error.fault().unwrap();
    let line = text.split('\n').nth(fault.line - 1).unwrap();
    let line = line.trim_start_matches('\u{feff}').trim_end_matches('\r');
    assert!((1..=line.chars().count() + 1).contains(&fault.column), "{error}");
    let shown = error.to_string();
    let carets = shown.lines().last().unwrap();
    let length = fault.line.to_string().len() + " | ".len() + line.chars().count();
    assert!(carets.ends_with('^'), "{shown}");
    assert!(carets.chars().count() <= length + 1, "{shown}");
}

#[test]
fn errors_show_the_line_with_the_place_underlined() {
    let case = |text: &str, expected: &str| assert_eq!(parse(text).unwrap_err().to_string(), expected);
    case(
        "mode = \"balanced\"\n\n[[isp]]\nname = \"DSL\"\ndevice = \"ppp0\"\n\nweight = 0\n",
        "balance.toml:7:10: weight must be between 1 and 1000\n  |\n7 | weight = 0\n  |          ^",
    );
    case(
        "[[isp]]\r\nname = \"A\"\r\n\tdevise\t= \"a0\"\r\n",
        "balance.toml:3:2: unknown key `devise`: [[isp]] can have name, device, weight, tier, gateway, targets, ipv6, \
         prefix, monitor, quota, quota_period, quota_reset_day, quota_direction, quota_warn, quota_action, spill_over, \
         spill_back\n  |\n3 | \tdevise\t= \"a0\"\n  | \t^^^^^^",
    );
    case(
        "isp = [{ name = \"Zürich\", device = \"a0\" }]",
        "balance.toml:1:17: name must be 1 to 31 letters, digits, `-` and `_`, and start with a letter\n  |\n\
         1 | isp = [{ name = \"Zürich\", device = \"a0\" }]\n  |                 ^^^^^^^^",
    );
    case(
        "isp = [{ name = 'Ä', device = 'a', weight = '1' }]",
        "balance.toml:1:17: name must be 1 to 31 letters, digits, `-` and `_`, and start with a letter\n  |\n\
         1 | isp = [{ name = 'Ä', device = 'a', weight = '1' }]\n  |                 ^^^",
    );
    case(
        "[[isp]]\nname = \"A\"\ndevice = \"a0\" # größer\ntargets = [\"1.1.1.1\", \"é\"]",
        "balance.toml:4:23: targets must be an address to ping, \"tcp://HOST:PORT\", a URL, \"dns://SERVER/NAME\", or \
         \"gateway\"\n  |\n\
         4 | targets = [\"1.1.1.1\", \"é\"]\n  |                       ^^^",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let error = Config::load(&missing).unwrap_err();
    assert!(error.fault().is_none());
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}: there is no such file", missing.display())), "{text}");
    assert!(Config::load(folder.path()).unwrap_err().to_string().contains("cannot be read"));

    let latin1 = folder.path().join("latin1.toml");
    fs::write(&latin1, b"mode = \"balanced\"\n# gr\xfc\xdfe\n").unwrap();
    let error = Config::load(&latin1).unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.line, fault.column), (2, 5));
    assert!(fault.message.contains("not UTF-8"));
}
