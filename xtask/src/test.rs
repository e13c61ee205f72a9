//! `cargo xtask test`: every test, and one honest line at the end.
//!
//! How a test says that it was skipped: it prints a line that starts with `SKIPPED: ` and the reason, and passes.
//! `--show-output` makes the test harness print what passing tests wrote, once all of a test program are done, so
//! the lines are counted here from the output alone. Ignored tests count as skipped as well.

use std::{
    env,
    io::{BufRead as _, BufReader},
    num::NonZero,
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    build_ebpf, command,
    tools::{self, SystemTool},
};

/// Which tests to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Only tests with one of these in their name; all tests when none is given
    filters: Vec<String>,
}

/// How many tests the harness runs at the same time.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// What the lab uses.
pub(crate) const LAB_TOOLS: [SystemTool; 3] = [
    SystemTool { program: "nft", package: "nftables" },
    SystemTool { program: "ip", package: "iproute2" },
    SystemTool { program: "conntrack", package: "conntrack" },
];

/// What tests put beside it.
const TEST_TOOLS: [SystemTool; 6] = [
    SystemTool { program: "dnsmasq", package: "dnsmasq-base" },
    SystemTool { program: "udhcpc", package: "udhcpc" },
    SystemTool { program: "promtool", package: "prometheus" },
    SystemTool { program: "chromium", package: "chromium" },
    SystemTool { program: "chromedriver", package: "chromium-driver" },
    SystemTool { program: "tmux", package: "tmux" },
];

/// Runs the tests. Success is that none failed and, in CI, that none was skipped.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build_ebpf::ensure_current()?;
    if tools::is_root() {
        tools::ensure_system_tools(&LAB_TOOLS)?;
        tools::ensure_system_tools(&TEST_TOOLS)?;
    } else {
        println!("Not root: tests that need the kernel will be skipped.");
    }
    // The binaries too, because the lab runs them. In one command with the tests, so that what both depend on is
    // built once, with one set of features.
    command::run(Command::new("cargo").args(["build", "--workspace", "--locked", "--bins", "--tests"]))?;
    let mut tests = Command::new("cargo");
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast", "--", "--show-output"]);
    tests.args(&options.filters);
    if env::var_os(TEST_THREADS).is_none() {
        // Labs mostly wait.
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        tests.env(TEST_THREADS, (cores + 1).to_string());
    }
    let summary = run_tests(&mut tests)?;
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    for skip in &summary.skips {
        println!("NOT TESTED: {skip}");
    }
    for test in &summary.ignored {
        println!("NOT TESTED: {test}: ignored");
    }
    if in_ci && summary.skipped() > 0 {
        println!("A skipped test is a failure in CI.");
    }
    println!("{}", summary.line());
    Ok(if summary.is_success(in_ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_tests(tests: &mut Command) -> Result<Summary> {
    command::show(tests);
    let mut child =
        tests.stdout(Stdio::piped()).spawn().map_err(|error| command::cannot_run(tests, &error))?;
    let output = child.stdout.take().context("the output of the tests is not piped")?;
    let mut summary = Summary::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        if summary.read(&line) {
            println!("{line}");
        }
    }
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() && summary.failed == 0 {
        println!("`cargo test` failed ({status}) though no test did: a test program was not built or died.");
        summary.failed = 1;
    }
    Ok(summary)
}

/// What the output of test programs adds up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    /// Tests that passed, those that said that they were skipped among them.
    passed: usize,
    failed: usize,
    /// The names of the ignored tests.
    ignored: Vec<String>,
    /// The test and its reason, for each that said that it was skipped.
    skips: Vec<String>,
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
    fn read(&mut self, line: &str) -> bool {
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

    fn skipped(&self) -> usize {
        self.skips.len() + self.ignored.len()
    }

    fn line(&self) -> String {
        let passed = self.passed.saturating_sub(self.skips.len());
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped())
    }

    fn is_success(&self, in_ci: bool) -> bool {
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
        let (summary, _) = summary_of(&[UNIT_TESTS, LAB_TESTS].concat());
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

    #[test]
    fn test_programs_that_never_finish_are_a_failure() {
        let summary = run_tests(Command::new("sh").args(["-c", "echo running 1 test; exit 101"])).unwrap();
        assert_eq!(summary.line(), "0 passed, 1 failed, 0 skipped");
    }
}
