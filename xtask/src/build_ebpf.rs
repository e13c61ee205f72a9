//! `cargo xtask build-ebpf`: the object that runs in the kernel, the same bytes from the same sources anywhere.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    command,
    sources::{Inputs, OBJECT, Record},
    tools::{self, BPF_LINKER, BPF_LINKER_VERSION, Toolchain},
};

/// How to build.
#[derive(Args)]
pub(crate) struct Options {
    /// Build even if the recorded hash says that nothing has changed
    #[arg(long)]
    force: bool,
    /// Build aside and fail if the result is not, byte for byte, the committed object
    #[arg(long, conflicts_with = "force")]
    check: bool,
}

const TARGET_DIR: &str = "target/ebpf";
/// What bpf-linker writes, with DWARF.
const LINKED: &str = "target/ebpf/bpfel-unknown-none/ebpf/balance-ebpf";
/// The same without DWARF.
const STRIPPED: &str = "target/ebpf/balance.bpf.o";

/// The flags for every crate in the object. The architecture chosen here only decides the layout of `pt_regs`,
/// which no program of ours reads; left alone it would be the builder's, and its name would be in the object.
const RUSTFLAGS: [&str; 2] = ["--cfg=bpf_target_arch=\"x86_64\"", "-Clink-arg=--btf"];

/// Builds the object, or checks the committed one.
pub(crate) fn run(options: &Options) -> Result<()> {
    let sources = sources_hash()?;
    if !options.check && !options.force && Record::is_current(Path::new(""), &sources) {
        println!("{OBJECT} is built from these sources already. (Build anyway: --force)");
        return Ok(());
    }
    let toolchain = Toolchain::pinned()?;
    toolchain.ensure_library_sources()?;
    tools::ensure_bpf_linker()?;
    build(&toolchain)?;
    strip(&toolchain)?;
    let object = fs::read(STRIPPED).with_context(|| format!("cannot read {STRIPPED}"))?;
    if options.check {
        return check(&sources, &object);
    }
    Record::new(sources, &object).write(Path::new(""), &object)?;
    println!("Wrote {OBJECT} ({} bytes) and the record of its sources. Commit both.", object.len());
    Ok(())
}

/// Fails unless the committed object was built from the sources that are here, as its record tells.
pub(crate) fn ensure_current() -> Result<()> {
    if Record::is_current(Path::new(""), &sources_hash()?) {
        return Ok(());
    }
    bail!("balance-ebpf/prebuilt is not built from these sources: run `cargo xtask build-ebpf`")
}

fn sources_hash() -> Result<String> {
    let recipe: Vec<&str> = [BPF_LINKER_VERSION].into_iter().chain(RUSTFLAGS).collect();
    Ok(Inputs::collect(Path::new(""), &recipe)?.hash())
}

fn check(sources: &str, object: &[u8]) -> Result<()> {
    let committed = fs::read(OBJECT).with_context(|| format!("cannot read {OBJECT}"))?;
    if object != committed {
        bail!(
            "{OBJECT} ({} bytes) is not what these sources give ({STRIPPED}, {} bytes): \
             run `cargo xtask build-ebpf` and commit the result",
            committed.len(),
            object.len()
        );
    }
    if !Record::is_current(Path::new(""), sources) {
        bail!("{OBJECT} is right, but its record is of other sources: run `cargo xtask build-ebpf`");
    }
    println!("{OBJECT} is what these sources give, byte for byte.");
    Ok(())
}

fn build(toolchain: &Toolchain) -> Result<()> {
    let linker = format!("-Clinker={BPF_LINKER}");
    let flags = RUSTFLAGS.map(str::to_owned).into_iter().chain([linker]).chain(remap_flags(toolchain)?);
    let flags: Vec<String> = flags.collect();
    command::run(
        Command::new("cargo")
            // One pinned toolchain for everything; this lets the stable one build `core` for the kernel.
            .env("RUSTC_BOOTSTRAP", "1")
            // Replaces flags from anywhere else, and unlike RUSTFLAGS can hold paths with spaces.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args(["build", "--package", "balance-ebpf", "--profile", "ebpf", "--locked"])
            .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir", TARGET_DIR]),
    )
}

/// BTF keeps the path of every source line. These flags replace each folder that differs between machines.
fn remap_flags(toolchain: &Toolchain) -> Result<[String; 3]> {
    let workspace = env::current_dir().context("cannot tell the folder of the workspace")?;
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => env::home_dir().context("neither CARGO_HOME nor a home folder is set")?.join(".cargo"),
    };
    Ok([
        (workspace, "/balance"),
        (cargo_home.join("registry/src"), "/cargo"),
        (toolchain.library_sources(), "/rust"),
    ]
    .map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display())))
}

/// Drops the DWARF, which only was the linker's source for the BTF. BTF, symbols and relocations stay.
fn strip(toolchain: &Toolchain) -> Result<()> {
    let (objcopy, libraries) = toolchain.objcopy();
    command::run(Command::new(objcopy).env("LD_LIBRARY_PATH", libraries).args([
        "--strip-debug",
        LINKED,
        STRIPPED,
    ]))
}
