//! Putting the nft table into the kernel, through the `nft` command.
//!
//! One script replaces the whole table in one transaction: packets see the old or the new one, never neither.
//! Other tables are not touched. The table has no owner, so NAT outlives the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::own;
use crate::core::plan::NftTable;

/// Why the nft table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error("the command `nft` is missing (not in $PATH, /usr/sbin, /sbin); install the package `nftables`")]
    Missing,
    /// `nft` could not be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The command.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `nft` refused.
    #[error("nft cannot {what} table inet {table}: {stderr}")]
    Refused {
        /// `replace`, `check`, `remove` or `list`.
        what: &'static str,
        /// The table's name.
        table: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
}

/// Puts the table in place, instead of the one of that name if there is one.
pub async fn apply(table: &NftTable) -> Result<(), NftError> {
    script("replace", &[], &table.name, &replacement(table)).await
}

/// Says whether the kernel would take the table, and changes nothing.
pub async fn check(table: &NftTable) -> Result<(), NftError> {
    script("check", &["-c"], &table.name, &replacement(table)).await
}

/// Removes the table of that name, if there is one.
pub async fn remove(name: &str) -> Result<(), NftError> {
    script("remove", &[], name, &removal(name)).await
}

/// The table of that name as the kernel has it, in the words of `nft list`; none if there is none. Without what packets
/// change: counters, and elements of named sets, which own rules may have.
pub async fn list(name: &str) -> Result<Option<String>, NftError> {
    let output = run(&["--stateless", "--terse", "list", "table", "inet", name], "").await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    } else if stderr.contains("No such file or directory") {
        Ok(None)
    } else {
        Err(NftError::Refused { what: "list", table: name.to_owned(), stderr: stderr.trim().to_owned() })
    }
}

/// What this process last put in place; by which it knows whether something has to be done.
#[derive(Debug, Default)]
pub struct Installed(Option<Known>);

#[derive(Debug)]
struct Known {
    planned: NftTable,
    /// How the kernel listed the table right after it was put in place.
    listing: String,
}

impl Installed {
    /// Puts the table in place unless it is there, unchanged, already. Says whether it had to.
    pub async fn ensure(&mut self, planned: &NftTable) -> Result<bool, NftError> {
        if let Some(known) = &self.0
            && known.planned == *planned
            && list(&planned.name).await?.as_deref() == Some(&known.listing)
        {
            return Ok(false);
        }
        // Forgotten until all has gone well, so that a failure is followed by another attempt.
        self.0 = None;
        apply(planned).await?;
        if let Some(listing) = list(&planned.name).await? {
            self.0 = Some(Known { planned: planned.clone(), listing });
        }
        Ok(true)
    }
}

/// The script that replaces the table. The first line makes sure that there is one to delete.
pub(super) fn replacement(table: &NftTable) -> String {
    format!("{}table inet {} {{\n{}}}\n", removal(&table.name), table.name, table.body)
}

fn removal(name: &str) -> String {
    format!("table inet {name} {{}}\ndelete table inet {name}\n")
}

async fn script(what: &'static str, options: &[&str], table: &str, text: &str) -> Result<(), NftError> {
    let output = run(&[options, &["-f", "-"]].concat(), text).await?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = own::located(text, String::from_utf8_lossy(&output.stderr).trim());
    Err(NftError::Refused { what, table: table.to_owned(), stderr })
}

async fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    let program = program().ok_or(NftError::Missing)?;
    let attempt = async {
        let mut child = Command::new(&program)
            .args(arguments)
            // Its messages are looked at.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()).await {
                // It gave up before it had read all: its exit status and its words tell why.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => drop(stdin),
            }
        }
        child.wait_with_output().await
    };
    attempt.await.map_err(|source| NftError::Run { program: program.clone(), source })
}

/// Where `nft` is. It lives in an sbin folder, which the PATH of a service or of `sudo` may lack.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("nft"))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
