//! The receiving end of sd-notify.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Host;
use crate::background::{Background, PATIENCE};

/// A socket that takes messages all the time, so that the daemon's never have to wait.
pub(crate) struct Notify {
    path: String,
    messages: Arc<Mutex<Vec<String>>>,
    _background: Background<()>,
}

impl Notify {
    /// Makes the socket under the host's `/run`, with a name that no other has.
    pub(crate) fn open(host: &Host) -> io::Result<Self> {
        let path = new_path();
        let messages = Arc::new(Mutex::default());
        let (bind, seen) = (path.clone(), Arc::clone(&messages));
        let open = move || {
            let socket = UnixDatagram::bind(bind)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok((socket, ()))
        };
        let (background, ()) = Background::start(host, open, move |socket, stop| take(&socket, stop, &seen))?;
        Ok(Self { path, messages, _background: background })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// All lines that came, such as `READY=1`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn take(socket: &UnixDatagram, stop: &AtomicBool, messages: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
                messages.extend(text.lines().map(str::to_owned));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn new_path() -> String {
    use std::sync::atomic::AtomicU32;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/run/notify-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
