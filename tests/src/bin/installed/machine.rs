//! A Debian that is booted as the router of a lab.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use balance_lab::{Child, Lab, wait_until};

const BOOT: Duration = Duration::from_mins(1);

/// It is switched off, the hard way, when it is dropped.
pub(crate) struct Machine<'a> {
    lab: &'a Lab,
    /// Its first process, as seen from outside.
    init: String,
    _container: Child,
}

impl<'a> Machine<'a> {
    /// Boots what is in the folder, with the network of the lab's router.
    pub(crate) fn boot(lab: &'a Lab, root: &Path) -> anyhow::Result<Self> {
        let mut command = lab.router().command("systemd-nspawn");
        command.args([
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--console=pipe",
        ]);
        command
            .args(["--capability=all", "--system-call-filter=bpf perf_event_open", "--directory"])
            .arg(root);
        command.arg(format!("--network-namespace-path={}", lab.router().netns()));
        // As on a machine that is none of somebody else's: sysctls can be set, tunnels made.
        command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes");
        command.arg("--bind=/dev/net/tun");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let container = lab.router().spawn(command)?;
        let mut init = String::new();
        let children = format!("/proc/{0}/task/{0}/children", container.id());
        wait_until(BOOT, "the machine's first process", || {
            fs::read_to_string(&children).unwrap_or_default().trim().clone_into(&mut init);
            !init.is_empty()
                && fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|comm| comm.trim() == "systemd")
        })?;
        let machine = Self { lab, init, _container: container };
        wait_until(BOOT, "the machine being up", || {
            machine.sh("systemctl is-active multi-user.target").is_ok()
        })?;
        // Machines have it from their boot on, containers do not.
        machine.sh("mount -t bpf -o mode=0700 bpf /sys/fs/bpf")?;
        Ok(machine)
    }

    /// Runs a script there, of which no command may fail, and returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> anyhow::Result<String> {
        let mut command = self.lab.router().command("nsenter");
        command.args(["--all", "--target", &self.init, "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-exc", script]);
        let output = command.stdin(Stdio::null()).output().context("cannot start nsenter")?;
        let [out, error] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        ensure!(output.status.success(), "{script:?} ended with {}: {out}{error}", output.status);
        Ok(out)
    }

    /// Writes a file there.
    pub(crate) fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        self.sh(&format!("install -D -m 644 /dev/stdin {path} <<'END'\n{text}\nEND")).map(drop)
    }

    /// Writes a script there.
    pub(crate) fn script(&self, path: &str, text: &str) -> anyhow::Result<()> {
        self.write(path, &format!("#!/bin/sh\n{text}"))?;
        self.sh(&format!("chmod 755 {path}")).map(drop)
    }

    /// The daemon's process id there, 0 if there is none.
    pub(crate) fn pid(&self) -> anyhow::Result<String> {
        Ok(self.sh("systemctl show -P MainPID balance")?.trim().to_owned())
    }
}
