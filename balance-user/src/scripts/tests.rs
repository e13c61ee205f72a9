use std::time::Instant;

use nix::sys::signal::kill;
use nix::unistd::{Pid, chown};

use super::*;

/// A folder of scripts.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// What the scripts have written to the file `log`, and which of them failed.
    fn run(&self, timeout: Duration, stages: &[Stage]) -> (String, Vec<String>) {
        let log = self.0.path().join("log");
        let environment = BTreeMap::from([
            ("LOG".to_owned(), log.display().to_string()),
            ("BALANCE_INSTANCE".to_owned(), "test".to_owned()),
        ]);
        let call = Call { folder: self.0.path().to_owned(), timeout, environment }.on(Occasion::Reload);
        let scripts = Scripts::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(scripts.run(&call, stages));
        (fs::read_to_string(log).unwrap_or_default(), scripts.failures())
    }
}

const AMPLE: Duration = Duration::from_secs(20);

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn scripts_are_run_in_the_order_of_stages_and_names_also_after_a_failure() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    for name in
        ["routes.d/20-b", "routes.d/10-a", "routes.d/9", "firewall.d/01", "pre-run.d/0", "post-run.d/0"]
    {
        folder.add(name, 0o755, &format!("echo {name} >> $LOG; [ {name} != routes.d/10-a ] || exit 3"));
    }
    let (log, failures) = folder.run(AMPLE, &Stage::AFTER);
    assert_eq!(log, "routes.d/10-a\nroutes.d/20-b\nroutes.d/9\nfirewall.d/01\npost-run.d/0\n");
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert!(failure.ends_with("/routes.d/10-a failed: exit status: 3"), "{failure}");
}

#[test]
fn scripts_have_the_given_variables_and_a_path_and_no_others() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    folder.add("routes.d/1", 0o755, "env > $LOG; pwd >> $LOG");
    let (log, failures) = folder.run(AMPLE, &[Stage::Routes]);
    assert_eq!(failures, [""; 0]);
    for line in ["BALANCE_INSTANCE=test", "BALANCE_EVENT=reload", "/"] {
        assert!(log.lines().any(|found| found == line), "{line} in {log}");
    }
    let strangers = log.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let ours = ["PATH", "LOG", "BALANCE_INSTANCE", "BALANCE_EVENT", "PWD", "OLDPWD", "SHLVL", "_"];
    assert_eq!(strangers.filter(|name| !ours.contains(name)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    folder.add("routes.d/1", 0o755, "sleep 600 & echo $! >> $LOG; sleep 600");
    folder.add("routes.d/2", 0o755, "echo next >> $LOG");
    let start = Instant::now();
    let (log, failures) = folder.run(Duration::from_millis(300), &[Stage::Routes]);
    assert!(start.elapsed() < AMPLE, "it was not waited for");
    assert_eq!(log.lines().nth(1), Some("next"));
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert!(failure.ends_with("/routes.d/1 killed after 300ms"), "{failure}");
    let child = Pid::from_raw(log.lines().next().unwrap().parse().unwrap());
    // Killed, though perhaps nobody has taken note yet.
    let is_gone = || {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        kill(child, None).is_err() || status.contains("State:\tZ")
    };
    balance_lab::wait_until(AMPLE, "its end", is_gone).unwrap();
}

#[test]
fn what_a_script_leaves_running_is_neither_waited_for_nor_killed() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    folder.add("routes.d/1", 0o755, "sleep 600 & echo $! > $LOG");
    let start = Instant::now();
    let (log, failures) = folder.run(AMPLE, &[Stage::Routes]);
    assert!(start.elapsed() < AMPLE && failures.is_empty(), "{failures:?}");
    kill(Pid::from_raw(log.trim().parse().unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn however_much_a_script_prints_it_comes_to_its_end() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    folder.add(
        "routes.d/1",
        0o755,
        "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo end > $LOG",
    );
    assert_eq!(folder.run(AMPLE, &[Stage::Routes]), ("end\n".to_owned(), Vec::new()));
}

#[test]
fn what_others_than_root_could_have_written_is_refused() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    folder.add("routes.d/1-group", 0o775, "echo 1 >> $LOG");
    folder.add("routes.d/2-all", 0o757, "echo 2 >> $LOG");
    let nobodys = folder.add("routes.d/3-nobody", 0o755, "echo 3 >> $LOG");
    chown(&nobodys, Some(65534.into()), None).unwrap();
    folder.add("routes.d/4-root", 0o700, "echo 4 >> $LOG");
    // A link says nothing, what it leads to does.
    let elsewhere = folder.add("elsewhere/script", 0o755, "echo 5 >> $LOG");
    std::os::unix::fs::symlink(&elsewhere, folder.0.path().join("routes.d/5-link")).unwrap();
    let foreign = elsewhere.parent().unwrap();
    let (log, failures) = folder.run(AMPLE, &[Stage::Routes]);
    assert_eq!(log, "4\n5\n");
    let ends = [
        "can be written by others than root",
        "can be written by others than root",
        "does not belong to root",
    ];
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures.iter().zip(ends).all(|(failure, end)| failure.ends_with(end)), "{failures:?}");

    chown(foreign, Some(65534.into()), None).unwrap();
    let (_, failures) = folder.run(AMPLE, &[Stage::Routes]);
    assert!(failures[3].contains("5-link not run: "), "{failures:?}");

    fs::set_permissions(folder.0.path().join("routes.d"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(folder.0.path().join("log")).unwrap();
    let (log, failures) = folder.run(AMPLE, &[Stage::Routes]);
    assert_eq!((log.as_str(), failures.len()), ("", 1), "the folder itself: {failures:?}");
}

#[test]
fn what_is_no_script_is_passed_over_and_missing_folders_are_empty() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    for name in [".hidden", "old~", "a.dpkg-old", "b.rpmsave", "rules.nft", "c.bak"] {
        folder.add(&format!("firewall.d/{name}"), 0o755, "echo $0 >> $LOG");
    }
    folder.add("firewall.d/not-executable", 0o644, "echo $0 >> $LOG");
    fs::create_dir(folder.0.path().join("firewall.d/folder")).unwrap();
    assert_eq!(folder.run(AMPLE, &Stage::AFTER), (String::new(), Vec::new()));
}

#[test]
fn a_script_that_cannot_be_started_says_so_and_what_has_failed_is_forgotten_when_it_works() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let path = folder.add("routes.d/1", 0o755, "true");
    fs::write(&path, "#!/no/such/shell\n").unwrap();
    let call = Call { folder: folder.0.path().to_owned(), timeout: AMPLE, environment: BTreeMap::new() };
    let scripts = Scripts::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scripts.run(&call, &[Stage::Routes]));
    assert!(scripts.failures()[0].contains("cannot be started: No such file"), "{:?}", scripts.failures());
    fs::write(&path, "#!/bin/sh\n").unwrap();
    runtime.block_on(scripts.run(&call, &[Stage::Routes]));
    assert_eq!(scripts.failures(), [""; 0]);
}
