//! `cargo xtask package`: what people install.

mod rpm;
mod tree;
mod trial;

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{command, manual, sources::Inputs, tools};
use tree::Tree;

/// What to make.
#[derive(Args)]
pub(crate) struct Options {
    /// The kinds of packages; all of them when none is given, with --test the .deb
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Boot a Debian of its own in a network of its own, install the .deb there, use it, and remove it; takes root
    #[arg(long)]
    test: bool,
    /// How the program is compiled; `dev` is quick, and not for others
    #[arg(long, default_value = "release")]
    profile: String,
}

/// A kind of package.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// For Debian, Ubuntu and their kin
    Deb,
    /// For Fedora, openSUSE and their kin
    Rpm,
    /// For any other: unpacked into /, with a program that needs no libraries
    Tarball,
}

/// What packages are called. `balance` is another program in distributions.
const NAME: &str = "balance-router";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const FOLDER: &str = "target/package";
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
const CARGO_GENERATE_RPM: (&str, &str) = ("cargo-generate-rpm", "0.21.1");
/// What decides packages besides the files in them.
const RECIPE: [&str; 7] = [
    "balance-user/Cargo.toml",
    "dist/deb/postinst",
    "dist/deb/postrm",
    "dist/deb/prerm",
    "dist/rpm/post.sh",
    "dist/rpm/postun.sh",
    "dist/rpm/preun.sh",
];

/// Makes the packages.
pub(crate) fn run(options: &Options) -> Result<()> {
    let kinds = match options.kinds.as_slice() {
        [] if options.test => &[Kind::Deb],
        [] => Kind::value_variants(),
        kinds => kinds,
    };
    let folder = Path::new(FOLDER);
    let documents = folder.join("manual");
    fs::create_dir_all(&documents).with_context(|| format!("cannot make {}", documents.display()))?;
    manual::make(&documents, &folder.join("commands.md"))?;
    if kinds.iter().any(|kind| *kind != Kind::Tarball) {
        let program = build(&options.profile, false)?;
        let tree = Tree::lay_out(&folder.join("tree"), &program, &documents)?;
        for kind in kinds {
            match kind {
                Kind::Deb => make(&tree, &deb(), || make_deb(&deb()))?,
                Kind::Rpm => make(&tree, &rpm(), || make_rpm(&tree, &rpm()))?,
                Kind::Tarball => {}
            }
        }
    }
    if kinds.contains(&Kind::Tarball) {
        let program = build(&options.profile, true)?;
        let tree = Tree::lay_out(&folder.join("static"), &program, &documents)?;
        make(&tree, &tarball(), || make_tarball(&tree, &tarball()))?;
    }
    if options.test { trial::run(&deb()) } else { Ok(()) }
}

/// Compiles the program, and says where it is. A static one has the C library in it and runs on any Linux.
fn build(profile: &str, is_static: bool) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--package", "balance-user", "--bins", "--profile", profile]);
    let target = format!("{ARCH}-unknown-linux-gnu");
    let mut folder = PathBuf::from("target");
    if is_static {
        // With a target, what runs while compiling is not linked like that, too.
        cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static").args(["--target", &target]);
        folder.push(target);
    }
    command::run(cargo.args(["--target-dir", "target"]))?;
    let profile = if profile == "dev" { "debug" } else { profile };
    Ok(folder.join(profile).join("balance-user"))
}

/// Makes a package, unless there is one of the same files.
fn make(tree: &Tree, package: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut inputs = Inputs::default();
    tree.add_to(&mut inputs)?;
    for path in RECIPE {
        inputs.add(path, fs::read(path).with_context(|| format!("cannot read {path}"))?);
    }
    let hash = inputs.hash();
    let mut record = package.as_os_str().to_owned();
    record.push(".inputs");
    if package.exists() && fs::read_to_string(&record).is_ok_and(|before| before == hash) {
        println!("{} is made of these files already.", package.display());
        return Ok(());
    }
    make()?;
    fs::write(&record, hash).with_context(|| format!("cannot write {}", record.display()))?;
    println!("Wrote {}.", package.display());
    Ok(())
}

fn deb() -> PathBuf {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Path::new(FOLDER).join(format!("{NAME}_{VERSION}-1_{architecture}.deb"))
}

fn make_deb(package: &Path) -> Result<()> {
    let cargo_deb = tools::ensure_cargo_tool(CARGO_DEB.0, CARGO_DEB.1)?;
    let mut command = Command::new(cargo_deb);
    command.args(["--no-build", "--no-strip", "--package", "balance-user", "--output"]).arg(package);
    command::run(&mut command)
}

fn rpm() -> PathBuf {
    Path::new(FOLDER).join(format!("{NAME}-{VERSION}-1.{ARCH}.rpm"))
}

fn make_rpm(tree: &Tree, package: &Path) -> Result<()> {
    let cargo_generate_rpm = tools::ensure_cargo_tool(CARGO_GENERATE_RPM.0, CARGO_GENERATE_RPM.1)?;
    let assets = Path::new(FOLDER).join("rpm.toml");
    fs::write(&assets, rpm::assets(tree)).with_context(|| format!("cannot write {}", assets.display()))?;
    let mut command = Command::new(cargo_generate_rpm);
    command
        .args(["--package", "balance-user", "--metadata-overwrite"])
        .arg(assets)
        .arg("--output")
        .arg(package);
    command::run(&mut command)
}

fn tarball() -> PathBuf {
    Path::new(FOLDER).join(format!("{NAME}-{VERSION}-{ARCH}.tar.gz"))
}

/// Files only, because folders in it would give theirs their owner and mode.
fn make_tarball(tree: &Tree, package: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--file"]).arg(package);
    command.arg("--directory").arg(tree.folder()).args(tree.files().map(|(path, _)| path));
    command::run(&mut command)
}
