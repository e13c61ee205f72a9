//! What the tests of all programs add up to.
//!
//! How a test says that it was skipped: it prints a line that starts with `SKIPPED: ` and the reason, and passes.
//! `--show-output` makes the test harness print what passing tests wrote, once all of a test program are done, so
//! the lines are counted here from the output alone. Ignored tests count as skipped as well.

/// What the output of test programs adds up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Tests that passed, those that said that they were skipped among them.
    passed: usize,
    pub(super) failed: usize,
    /// The names of the ignored tests.
    pub(super) ignored: Vec<String>,
    /// The test and its reason, for each that said that it was skipped.
    pub(super) skips: Vec<String>,
    section: Section,
    /// The passed test whose output is being read.
    test: Option<String>,
}

/// Where in the output of a test program a line is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Other,
    /// What passed tests wrote.
    PassedOutput,
    /// The list of passed tests, which have been named already.
    PassedNames,
}

impl Summary {
    /// Takes one line of output into account, and tells whether it is worth showing.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if line == "successes:" {
            // The harness writes this heading twice: above what the tests wrote, and above their names.
            let seen = self.section == Section::PassedOutput;
            self.section = if seen { Section::PassedNames } else { Section::PassedOutput };
            return false;
        }
        if line == "failures:" {
            self.section = Section::Other;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.section = Section::Other;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if self.section == Section::Other
            && let Some((test, _)) = line.split_once(" ... ignored")
        {
            self.ignored.push(test.trim_start_matches("test ").to_owned());
        } else if self.section == Section::PassedOutput {
            self.read_passed_output(line);
        }
        self.section != Section::PassedNames
    }

    fn read_passed_output(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.test = Some(test.to_owned());
        } else if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            // A test is skipped once, however often it says so.
            if let Some(test) = self.test.take() {
                self.skips.push(format!("{test}: {reason}"));
            }
        }
    }

    /// Adds what another program's output adds up to.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored.extend(other.ignored);
        self.skips.extend(other.skips);
    }

    pub(super) fn skipped(&self) -> usize {
        self.skips.len() + self.ignored.len()
    }

    pub(super) fn line(&self) -> String {
        let passed = self.passed.saturating_sub(self.skips.len());
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped())
    }

    pub(super) fn is_success(&self, in_ci: bool) -> bool {
        self.failed == 0 && !(in_ci && self.skipped() > 0)
    }
}

/// The number before `what` in libtest's `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn count(counts: &str, what: &str) -> usize {
    let number = counts.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT_TESTS: &str = "
running 4 tests
test a::passes ... ok
test b::is_skipped ... ok
test c::is_ignored ... ignored, takes an hour
test d::fails ... FAILED

successes:

---- a::passes stdout ----
0.4 ms

---- b::is_skipped stdout ----
SKIPPED: not root
SKIPPED: not root, again


successes:
    a::passes
    b::is_skipped

failures:

---- d::fails stdout ----
SKIPPED: but it then failed


failures:
    d::fails

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s
";
    const LAB_TESTS: &str = "
running 1 test
test e ... ok

successes:

successes:
    e

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    /// The summary of this output, and the lines of it that are shown.
    fn summary_of(output: &str) -> (Summary, Vec<&str>) {
        let mut summary = Summary::default();
        let shown = output.lines().filter(|line| summary.read(line)).collect();
        (summary, shown)
    }

    #[test]
    fn all_test_programs_are_summed() {
        let (mut summary, _) = summary_of(UNIT_TESTS);
        summary.add(summary_of(LAB_TESTS).0);
        assert_eq!(summary.line(), "2 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_skipped_test_counts_once_and_not_as_passed() {
        let (summary, _) = summary_of(UNIT_TESTS);
        assert_eq!(summary.skips, ["b::is_skipped: not root"]);
        assert_eq!(summary.ignored, ["c::is_ignored"]);
        assert_eq!(summary.line(), "1 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn what_tests_write_is_shown_and_names_are_not_repeated() {
        let (_, shown) = summary_of(UNIT_TESTS);
        assert!(shown.contains(&"0.4 ms") && shown.contains(&"    d::fails"));
        assert!(!shown.contains(&"    a::passes"));
    }

    #[test]
    fn a_failure_is_never_success() {
        let (summary, _) = summary_of(UNIT_TESTS);
        assert!(!summary.is_success(false) && !summary.is_success(true));
    }

    #[test]
    fn a_skip_is_success_except_in_ci() {
        let summary = Summary { passed: 2, skips: vec!["a: not root".to_owned()], ..Summary::default() };
        assert!(summary.is_success(false) && !summary.is_success(true));
        let summary = Summary { passed: 2, ignored: vec!["a".to_owned()], ..Summary::default() };
        assert!(summary.is_success(false) && !summary.is_success(true));
    }
}
