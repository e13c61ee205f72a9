//! The programs the tasks need: found, or installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::{command, sources};

/// The version of bpf-linker that makes the object; another may make other bytes.
pub(crate) const BPF_LINKER_VERSION: &str = "0.10.3";
/// Where it is installed, below the workspace.
pub(crate) const BPF_LINKER: &str = "target/tools/bin/bpf-linker";
const TOOLS_ROOT: &str = "target/tools";

/// The pinned Rust toolchain.
pub(crate) struct Toolchain {
    /// Its version, as rust-toolchain.toml says it.
    channel: String,
    /// The folder with its libraries.
    sysroot: PathBuf,
    /// What this machine is called as a target, such as `x86_64-unknown-linux-gnu`.
    host: String,
}

impl Toolchain {
    /// The toolchain in use, which must be the one that rust-toolchain.toml pins.
    pub(crate) fn pinned() -> Result<Self> {
        let pin = sources::read_toml(Path::new("rust-toolchain.toml"))?;
        let channel = pin.get("toolchain").and_then(|toolchain| toolchain.get("channel")?.as_str());
        let channel = channel.context("rust-toolchain.toml names no channel")?.to_owned();
        let version = command::read(Command::new("rustc").arg("-vV"))?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:").context("`rustc -vV` names no release")?;
        if release != channel {
            bail!("the object is built by Rust {channel} (rust-toolchain.toml), but `rustc` is {release}");
        }
        let host = field("host:").context("`rustc -vV` names no host")?.to_owned();
        let sysroot = command::read(Command::new("rustc").args(["--print", "sysroot"]))?.into();
        Ok(Self { channel, sysroot, host })
    }

    /// Installs the sources of the standard library, unless they are there.
    pub(crate) fn ensure_library_sources(&self) -> Result<()> {
        if self.library_sources().join("library/Cargo.lock").exists() {
            return Ok(());
        }
        command::run(Command::new("rustup").args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            &self.channel,
        ]))
    }

    /// The folder of the standard library's sources.
    pub(crate) fn library_sources(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// The `objcopy` that comes with rustc, and the folder of the libraries it needs.
    pub(crate) fn objcopy(&self) -> (PathBuf, PathBuf) {
        let libraries = self.sysroot.join("lib");
        (libraries.join("rustlib").join(&self.host).join("bin/rust-objcopy"), libraries)
    }
}

/// Installs bpf-linker into target/tools, unless it is there in the right version.
pub(crate) fn ensure_bpf_linker() -> Result<()> {
    let wanted = format!("bpf-linker {BPF_LINKER_VERSION}");
    let installed = Path::new(BPF_LINKER).exists()
        && command::read(Command::new(BPF_LINKER).arg("--version")).is_ok_and(|version| version == wanted);
    if installed { Ok(()) } else { install("bpf-linker", BPF_LINKER_VERSION) }
}

/// Installs a program of the crates' registry into target/tools, unless cargo has noted that it is there in this version.
/// Says where it is.
pub(crate) fn ensure_cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let root = Path::new(TOOLS_ROOT);
    let program = root.join("bin").join(name);
    let notes = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    if !(program.exists() && notes.contains(&format!("\"{name} {version} "))) {
        install(name, version)?;
    }
    Ok(program)
}

fn install(name: &str, version: &str) -> Result<()> {
    println!("Building {name} {version} once, which takes a minute or two.");
    let arguments =
        ["install", name, "--version", version, "--locked", "--debug", "--force", "--root", TOOLS_ROOT];
    // Unoptimised, because building it takes far longer than running it.
    command::run(Command::new("cargo").args(arguments).env("CARGO_PROFILE_DEV_DEBUG", "0"))
}

/// A program of the system, and the package of Debian and Ubuntu that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemTool {
    /// What it is called.
    pub(crate) program: &'static str,
    /// The package.
    pub(crate) package: &'static str,
}

/// Installs the tools that are missing with apt-get, where that is possible: as root on Debian and its kin.
/// Elsewhere fails, and names what to install.
pub(crate) fn ensure_system_tools(tools: &[SystemTool]) -> Result<()> {
    let missing = missing_tools(tools);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || find("apt-get").is_none() {
        bail!("{}", install_hint(&missing));
    }
    command::run(Command::new("apt-get").arg("update"))?;
    command::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(missing.iter().map(|tool| tool.package)),
    )
}

/// The tools that are not installed.
pub(crate) fn missing_tools(tools: &[SystemTool]) -> Vec<SystemTool> {
    tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect()
}

/// Names missing tools and the packages that have them.
pub(crate) fn install_hint(missing: &[SystemTool]) -> String {
    let programs: Vec<_> = missing.iter().map(|tool| format!("`{}`", tool.program)).collect();
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    format!(
        "not installed: {} (Debian and Ubuntu: apt-get install {})",
        programs.join(", "),
        packages.join(" ")
    )
}

/// Whether this process may change the network and load eBPF programs.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Where a program is. Looks in the system folders too, which an ordinary user's PATH may lack.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: SystemTool =
        SystemTool { program: "no-such-program-of-balance", package: "balance-nothing" };

    #[test]
    fn only_what_is_not_installed_is_missing() {
        let shell = SystemTool { program: "sh", package: "dash" };
        assert_eq!(missing_tools(&[shell, MISSING]), [MISSING]);
    }

    #[test]
    fn the_hint_names_programs_and_packages() {
        assert_eq!(
            install_hint(&[MISSING]),
            "not installed: `no-such-program-of-balance` (Debian and Ubuntu: apt-get install balance-nothing)"
        );
    }
}
