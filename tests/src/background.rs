//! A thread of a host that works until it is told to stop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Host;

/// How long such a thread may wait for a packet before it looks whether it should stop.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// The thread; dropping it stops it and waits for its end.
pub(crate) struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<T>>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts a thread on `host`, with file descriptors of its own. It first runs `open`, whose second value is
    /// returned here, then `work` with the first value, until the flag is set.
    pub(crate) fn start<S, R: Send + 'static>(
        host: &Host,
        open: impl FnOnce() -> io::Result<(S, R)> + Send + 'static,
        work: impl FnOnce(S, &AtomicBool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, R)> {
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, answer) = mpsc::channel();
        let flag = Arc::clone(&stop);
        let thread = host.worker(move || {
            let (state, result) = open()?;
            let _ = opened.send(result);
            work(state, &flag)
        })?;
        let mut background = Self { stop, thread: Some(thread) };
        match answer.recv() {
            Ok(result) => Ok((background, result)),
            Err(_) => Err(background.end().err().unwrap_or_else(gone)),
        }
    }

    /// Stops the thread and returns its result.
    pub(crate) fn stop(mut self) -> io::Result<T> {
        self.end()
    }

    /// Waits until the thread ends by itself and returns its result.
    pub(crate) fn wait(mut self) -> io::Result<T> {
        self.join()
    }
}

impl<T> Background<T> {
    fn end(&mut self) -> io::Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> io::Result<T> {
        let thread = self.thread.take().ok_or_else(gone)?;
        thread.join().map_err(|_| gone())?
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread of the lab died")
}
