//! A real terminal, by tmux.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::{Child, Host, wait_until};

/// How long something may take to be on the screen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A terminal of a host in which a command runs. Dropping it ends both.
pub struct Terminal<'a> {
    host: &'a Host,
    socket: PathBuf,
    _server: Child,
}

impl<'a> Terminal<'a> {
    /// Opens a terminal of this size and runs a command for the shell in it. When that has ended, the line `ended: ` with its exit
    /// code is on the screen.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn open(host: &'a Host, (columns, lines): (u16, u16), command: &str) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = PathBuf::from(format!("/run/tmux-{number}"));
        let mut server = host.command("tmux");
        // In the foreground, so that it ends with us.
        server.args(["-u", "-f", "/dev/null", "-D", "-S"]).arg(&socket);
        server.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let terminal = Self { host, _server: host.spawn(server)?, socket };
        let command = format!("{command}; echo ended: $?; exec cat");
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let arguments = ["new-session", "-d", "-x", &columns, "-y", &lines, &command];
        let mut opened = Ok(());
        wait_until(TIMEOUT, "a terminal", || {
            opened = terminal.tmux(&arguments).map(drop);
            opened.is_ok()
        })
        .and(opened)?;
        // Otherwise the last line would be tmux's own.
        terminal.tmux(&["set-option", "-g", "status", "off"])?;
        terminal.tmux(&["resize-window", "-x", &columns, "-y", &lines])?;
        Ok(terminal)
    }

    /// What is on the screen, without spaces at the ends of lines. Lines that were too long for it are one.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn screen(&self) -> anyhow::Result<String> {
        let screen = self.tmux(&["capture-pane", "-p", "-J"])?;
        Ok(screen.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
    }

    /// Presses keys, by tmux's names: `q`, `Enter`, `C-c`.
    ///
    /// # Errors
    /// When tmux is gone.
    pub fn press(&self, keys: &[&str]) -> anyhow::Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Errors
    /// When it is not within ten seconds, with what it is instead.
    pub fn wait(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut screen = String::new();
        wait_until(TIMEOUT, "the screen", || {
            screen = self.screen().unwrap_or_default();
            wanted(&screen)
        })
        .with_context(|| format!("the screen is\n{screen}"))?;
        Ok(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.socket.to_string_lossy();
        self.host.feed("tmux", &[&["-u", "-S", &socket], arguments].concat(), "")
    }
}
