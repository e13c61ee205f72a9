//! `cargo xtask build-ebpf`: the objects that run in the kernel, the same bytes from the same sources anywhere.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    command,
    sources::{Inputs, OBJECTS, Object, Record},
    tools::{self, BPF_LINKER, BPF_LINKER_VERSION, Toolchain},
};

/// How to build.
#[derive(Args)]
pub(crate) struct Options {
    /// Build even if the recorded hash says that nothing has changed
    #[arg(long)]
    force: bool,
    /// Build aside and fail if the result is not, byte for byte, what is committed
    #[arg(long, conflicts_with = "force")]
    check: bool,
}

const TARGET_DIR: &str = "target/ebpf";

/// The flags for every crate in the object. The architecture chosen here only decides the layout of `pt_regs`,
/// which no program of ours reads; left alone it would be the builder's, and its name would be in the object.
const RUSTFLAGS: [&str; 2] = ["--cfg=bpf_target_arch=\"x86_64\"", "-Clink-arg=--btf"];

/// Builds the objects, or checks the committed ones.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut tools = None;
    for object in &OBJECTS {
        let sources = sources_hash(object)?;
        if !options.check && !options.force && Record::is_current(Path::new(""), object, &sources) {
            println!("{} is built from these sources already. (Build anyway: --force)", object.path());
            continue;
        }
        let toolchain = match &tools {
            Some(toolchain) => toolchain,
            None => tools.insert(install_tools()?),
        };
        build(object, toolchain)?;
        let stripped = strip(object, toolchain)?;
        let bytes = fs::read(&stripped).with_context(|| format!("cannot read {stripped}"))?;
        if options.check {
            check(object, &sources, &bytes, &stripped)?;
        } else {
            Record::new(sources, &bytes).write(Path::new(""), object, &bytes)?;
            let path = object.path();
            println!("Wrote {path} ({} bytes) and the record of its sources. Commit both.", bytes.len());
        }
    }
    Ok(())
}

/// Fails unless the committed objects were built from the sources that are here, as their records tell.
pub(crate) fn ensure_current() -> Result<()> {
    for object in &OBJECTS {
        if !Record::is_current(Path::new(""), object, &sources_hash(object)?) {
            bail!("{} is not built from these sources: run `cargo xtask build-ebpf`", object.path());
        }
    }
    Ok(())
}

fn install_tools() -> Result<Toolchain> {
    let toolchain = Toolchain::pinned()?;
    toolchain.ensure_library_sources()?;
    tools::ensure_bpf_linker()?;
    Ok(toolchain)
}

fn sources_hash(object: &Object) -> Result<String> {
    let recipe: Vec<&str> = [BPF_LINKER_VERSION].into_iter().chain(RUSTFLAGS).collect();
    Ok(Inputs::collect(Path::new(""), object, &recipe)?.hash())
}

fn check(object: &Object, sources: &str, built: &[u8], built_path: &str) -> Result<()> {
    let path = object.path();
    let committed = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    if built != committed {
        bail!(
            "{path} ({} bytes) is not what these sources give ({built_path}, {} bytes): \
             run `cargo xtask build-ebpf` and commit the result",
            committed.len(),
            built.len()
        );
    }
    if !Record::is_current(Path::new(""), object, sources) {
        bail!("{path} is right, but its record is of other sources: run `cargo xtask build-ebpf`");
    }
    println!("{path} is what these sources give, byte for byte.");
    Ok(())
}

fn build(object: &Object, toolchain: &Toolchain) -> Result<()> {
    let linker = format!("-Clinker={BPF_LINKER}");
    let flags = RUSTFLAGS.map(str::to_owned).into_iter().chain([linker]).chain(remap_flags(toolchain)?);
    let flags: Vec<String> = flags.collect();
    command::run(
        Command::new("cargo")
            // One pinned toolchain for everything; this lets the stable one build `core` for the kernel.
            .env("RUSTC_BOOTSTRAP", "1")
            // Replaces flags from anywhere else, and unlike RUSTFLAGS can hold paths with spaces.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args(["build", "--package", object.package, "--bins", "--profile", "ebpf", "--locked"])
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

/// Drops the DWARF, which only was the linker's source for the BTF. BTF, symbols and relocations stay. Returns where
/// the result is.
fn strip(object: &Object, toolchain: &Toolchain) -> Result<String> {
    let linked = format!("{TARGET_DIR}/bpfel-unknown-none/ebpf/{}", object.package);
    let stripped = format!("{TARGET_DIR}/{}", object.name);
    let (objcopy, libraries) = toolchain.objcopy();
    let mut command = Command::new(objcopy);
    command.env("LD_LIBRARY_PATH", libraries).args(["--strip-debug", &linked, &stripped]);
    command::run(&mut command)?;
    Ok(stripped)
}
