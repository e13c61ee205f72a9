//! Tests that the documentation gives as evidence.

use std::fs;
use std::path::Path;

use super::root;

/// The names of the functions of all tests there are.
fn tests_below(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split_once("()"));
            names.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
}

fn tests() -> Vec<String> {
    let mut tests = Vec::new();
    for folder in [
        "balance-common",
        "balance-user/src",
        "balance-user/tests",
        "tests/tests",
        "manual/tests",
        "xtask/src",
    ] {
        tests_below(&root().join(folder), &mut tests);
    }
    tests
}

#[test]
fn every_test_that_the_parity_tables_name_exists() {
    let tests = tests();
    let tables = include_str!("../../../docs/migrating.md");
    let (_, tables) = tables.split_once("\n## Net::ISP::Balance, line by line\n").unwrap();
    let (tables, _) = tables.split_once("\n## ").unwrap();
    let cells = tables.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | "));
    let named: Vec<_> = cells.filter_map(|(_, cell)| cell.strip_prefix('`')?.strip_suffix('`')).collect();
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        assert!(tests.iter().any(|test| test == name), "there is no test {name}");
    }
}

#[test]
fn every_complaint_is_answered_with_tests_that_exist() {
    let tests = tests();
    let questions = include_str!("../../../docs/faq.md");
    let (_, complaints) = questions.split_once("\n## Twenty complaints\n").unwrap();
    let complaints: Vec<_> = complaints.split("\n### ").skip(1).collect();
    assert_eq!(complaints.len(), 20);
    for complaint in complaints {
        let (question, answer) = complaint.split_once('\n').unwrap();
        let (_, evidence) =
            answer.rsplit_once("\nShown by ").unwrap_or_else(|| panic!("no evidence: {question}"));
        let named: Vec<_> = evidence.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{question}");
        for name in named {
            assert!(tests.iter().any(|test| test == name), "{question}: there is no test {name}");
        }
    }
}
