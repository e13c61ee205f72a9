//! The test programs of the workspace, several of them at the same time.

use std::{
    collections::VecDeque,
    env,
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read},
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::summary::Summary;
use crate::command;

/// Test programs that run by themselves: what they send makes the kernel drop packets of all labs, which share its queues.
const ALONE: [&str; 1] = ["fast"];
/// How many of the others run at the same time. Each has tests that mostly wait, and one that is its last.
const AT_ONCE: usize = 2;

/// How many tests a program runs at the same time.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Of the target that it is built of.
    name: String,
    /// Of the package, where the program expects to be run.
    folder: PathBuf,
    path: PathBuf,
}

/// What cargo says of each target that it has built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// All that the workspace has, once they are built.
pub(super) fn find() -> Result<Vec<Program>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--locked", "--no-run", "--quiet", "--message-format=json"]);
    Ok(parse(&command::read(&mut cargo)?))
}

fn parse(messages: &str) -> Vec<Program> {
    // Messages of other kinds lack the fields of this one.
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let programs = artifacts.filter(|artifact| artifact.profile.test).filter_map(|artifact| {
        let folder = artifact.manifest_path.parent()?.to_owned();
        Some(Program { name: artifact.target.name, folder, path: artifact.executable? })
    });
    programs.collect()
}

/// Runs them with these arguments and shows the output of each as it ends.
pub(super) fn run(programs: Vec<Program>, arguments: &[String]) -> Result<Summary> {
    let (alone, others): (VecDeque<_>, VecDeque<_>) =
        programs.into_iter().partition(|program| ALONE.contains(&program.name.as_str()));
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut summary = run_all(others, arguments, AT_ONCE, cores)?;
    // One more than cores, because labs mostly wait.
    summary.add(run_all(alone, arguments, 1, cores + 1)?);
    Ok(summary)
}

/// So many programs at once, each with so many tests at once.
fn run_all(
    programs: VecDeque<Program>,
    arguments: &[String],
    at_once: usize,
    tests_at_once: usize,
) -> Result<Summary> {
    let queue = Mutex::new(programs);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let total = Mutex::new(Summary::default());
    let work = || -> Result<()> {
        while let Some(program) = next() {
            let start = Instant::now();
            let mut tests = Command::new(&program.path);
            tests.args(arguments).current_dir(&program.folder);
            if env::var_os(TEST_THREADS).is_none() {
                tests.env(TEST_THREADS, tests_at_once.to_string());
            }
            let (summary, shown) = read(&mut tests)?;
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            let (folder, name) = (short(&program.folder), &program.name);
            println!("\n-- {folder}: {name} ({} s)\n{shown}", start.elapsed().as_secs());
            total.add(summary);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn short(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the output of tests adds up to, and what of it is to be shown.
pub(super) fn read(tests: &mut Command) -> Result<(Summary, String)> {
    let (output, into) = io::pipe().context("cannot make a pipe")?;
    let errors = into.try_clone().context("cannot make a pipe")?;
    let mut child =
        tests.stdout(into).stderr(errors).spawn().map_err(|error| command::cannot_run(tests, &error))?;
    // Else there would be no end of the output.
    tests.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut summary, mut shown) = summarized(output)?;
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() && summary.failed == 0 {
        writeln!(shown, "It failed ({status}) though no test did: it was not built or died.")?;
        summary.failed = 1;
    }
    Ok((summary, shown))
}

fn summarized(output: impl Read) -> Result<(Summary, String)> {
    let (mut summary, mut shown) = (Summary::default(), String::new());
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        if summary.read(&line) {
            shown.push_str(&line);
            shown.push('\n');
        }
    }
    Ok((summary, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cargo writes them, but for fields that nobody asks for.
    const MESSAGES: &str = r#"
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"a"},"profile":{"test":true},"executable":"/w/target/a-1"}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"tool"},"profile":{"test":false},"executable":"/w/target/tool"}
{"reason":"build-script-executed","package_id":"b"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn test_programs_are_those_that_cargo_has_built_for_testing() {
        let program = Program { name: "a".to_owned(), folder: "/w/a".into(), path: "/w/target/a-1".into() };
        assert_eq!(parse(MESSAGES), [program]);
    }

    #[test]
    fn all_programs_are_run_and_summed_and_those_that_die_have_failed() {
        let program = |path: &str| Program { name: path.to_owned(), folder: "/".into(), path: path.into() };
        let script = |line: &str| vec!["-c".to_owned(), line.to_owned()];
        let said = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let programs: Vec<_> = (0..5).map(|_| program("/bin/sh")).collect();
        let summary = run(programs, &script(&format!("echo '{said}'; test $RUST_TEST_THREADS"))).unwrap();
        assert_eq!(summary.line(), "10 passed, 0 failed, 0 skipped");
        let summary = run(vec![program("/bin/sh"), program("/bin/true")], &script("exit 1")).unwrap();
        assert_eq!(summary.line(), "0 passed, 1 failed, 0 skipped");
        assert!(run(vec![program("/no/such/program")], &[]).is_err());
    }

    #[test]
    fn test_programs_that_never_finish_are_a_failure() {
        let (summary, shown) =
            read(Command::new("sh").args(["-c", "echo running 1 test; exit 101"])).unwrap();
        assert_eq!(summary.line(), "0 passed, 1 failed, 0 skipped");
        assert!(shown.starts_with("running 1 test\n") && shown.contains("101"), "{shown}");
    }
}
