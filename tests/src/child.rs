//! A process of a host.

use std::io;
use std::ops::{Deref, DerefMut};
use std::process;

/// A process that is killed when it is dropped.
pub struct Child(process::Child);

impl Child {
    pub(crate) fn new(child: process::Child) -> Self {
        Self(child)
    }

    /// Kills it with `SIGKILL` and waits for its end; does nothing if it has ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill9(&mut self) -> io::Result<process::ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }
}

impl Deref for Child {
    type Target = process::Child;

    fn deref(&self) -> &process::Child {
        &self.0
    }
}

impl DerefMut for Child {
    fn deref_mut(&mut self) -> &mut process::Child {
        &mut self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill9();
    }
}
