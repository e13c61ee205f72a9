//! `cargo xtask package --test`: is the .deb good? A Debian is made, the package is installed there as people would, and a
//! program of the lab boots it and uses it.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::FOLDER;
use crate::{
    command, test,
    tools::{self, SystemTool},
};

const TOOLS: [SystemTool; 3] = [
    SystemTool { program: "debootstrap", package: "debootstrap" },
    SystemTool { program: "systemd-nspawn", package: "systemd-container" },
    SystemTool { program: "systemd-analyze", package: "systemd" },
];
/// What a router has besides the base of Debian.
const PACKAGES: &str = "systemd,systemd-sysv,iproute2,procps";
/// Ten times what `systemd-analyze security` may find wrong with the unit, at most.
const EXPOSURE: &str = "30";
/// Where the package is, seen from within.
const PACKAGE: &str = "/root/package.deb";

/// Tries the package.
pub(crate) fn run(package: &Path) -> Result<()> {
    if !tools::is_root() {
        bail!("trying the package takes root");
    }
    tools::ensure_system_tools(&test::LAB_TOOLS)?;
    tools::ensure_system_tools(&TOOLS)?;
    let folder = Path::new(FOLDER);
    let unit = folder.join("tree/usr/lib/systemd/system/balance.service");
    command::run(
        Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE])
            .arg(unit),
    )?;
    let base = folder.join("debian-base");
    if !base.join("etc/debian_version").exists() {
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite()?]).arg(&base);
        command::run(&mut debootstrap)?;
    }
    let root = folder.join("debian");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    command::run(Command::new("cp").arg("--archive").args([&base, &root]))?;
    command::run(Command::new("cp").arg(package).arg(root.join(PACKAGE.trim_start_matches('/'))))?;
    let install = ["apt-get", "install", "--yes", "--no-install-recommends", PACKAGE];
    command::run(Command::new("chroot").arg(&root).args(["apt-get", "update"]))?;
    command::run(Command::new("chroot").arg(&root).args(install).env("DEBIAN_FRONTEND", "noninteractive"))?;
    command::run(Command::new("cargo").args(["build", "--workspace", "--locked", "--bin", "installed"]))?;
    let program =
        env::current_exe().context("cannot tell where this program is")?.with_file_name("installed");
    command::run(Command::new(program).arg(root.canonicalize()?).arg(PACKAGE))
}

/// The Debian that this machine is: what is compiled here needs a C library that is as new.
fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).context("/etc/os-release names no VERSION_CODENAME: this is no Debian")
}
