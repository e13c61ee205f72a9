//! Running one script.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Call, ScriptError};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// So much of what a script prints is logged, in bytes.
const OUTPUT: usize = 16 * 1024;
/// How long what it has started may still print, after its own end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Runs a script and waits for its end. If that takes too long, or nobody waits any longer, it is killed with its process
/// group; what it leaves behind when it ends by itself is not.
pub(super) async fn run(script: &Path, call: &Call, arguments: &[String]) -> Result<(), ScriptError> {
    let mut child = Command::new(script)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(&call.environment)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ScriptError::Start)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let reading = async { tokio::join!(collect(out, &mut stdout), collect(err, &mut stderr)) }.fuse();
        tokio::pin!(reading);
        let waiting = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut reading, if !reading.is_terminated() => {}
                }
            }
        };
        let ended = timeout(call.timeout, waiting).await;
        if ended.is_err() {
            group.kill();
        } else {
            group.release();
        }
        if !reading.is_terminated() {
            let _ = timeout(LAST_WORDS, reading).await;
        }
        ended
    };
    for line in [stdout, stderr].iter().flat_map(|output| output.split(|&byte| byte == b'\n')) {
        if !line.is_empty() {
            tracing::info!("{}: {}", script.display(), String::from_utf8_lossy(line));
        }
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(ScriptError::Failed(status)),
        Ok(Err(error)) => Err(ScriptError::Start(error)),
        Err(_) => {
            // Killed, so that is at once.
            let _ = child.wait().await;
            Err(ScriptError::TooSlow(call.timeout))
        }
    }
}

/// Reads until the end, so that nobody has to wait with printing, but keeps only the beginning.
async fn collect(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT.saturating_sub(to.len());
        to.extend(buffer.iter().take(length.min(room)));
    }
}

/// The process group of a script that runs.
struct Group(Option<Pid>);

impl Group {
    /// The script has ended: the number may soon be another's.
    const fn release(&mut self) {
        self.0 = None;
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
