//! Writing to the terminal, or to whatever stands in its place.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes to standard output. A reader that has seen enough (`balance-user status | head -1`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    write(&mut io::stdout().lock(), text)
}

/// Writes a text with colours to standard output, and leaves them out where they are not wanted.
pub fn print_styled(text: &str) -> io::Result<()> {
    print(&as_wanted(text))
}

/// A text with colours, or without where they are not wanted on standard output.
#[must_use]
pub fn as_wanted(text: &str) -> Cow<'_, str> {
    match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => strip_str(text).to_string().into(),
        _ => text.into(),
    }
}

/// Writes to standard error. There is nobody left to tell if that fails.
pub fn print_error(text: &str) {
    drop(write(&mut io::stderr().lock(), text));
}

/// Writes much to standard output, bit by bit, as long as somebody reads it: one who has seen enough ends it, which is no error.
pub fn stream(work: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut output = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = work(&mut output).and_then(|()| Ok(output.flush()?));
    // What is left has nobody to read it, and would be written when dropped.
    let (_, _) = output.into_parts();
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        result => result,
    }
}

/// How many columns the terminal has that standard output is; none if it is no terminal.
#[must_use]
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    // Zero is what terminals have that nobody has told their size.
    let (columns, _) = crossterm::terminal::size().ok().filter(|(columns, _)| *columns > 0)?;
    Some(usize::from(columns))
}

/// Waits so long; whether somebody still reads what we print. A terminal that is gone ends us by a signal.
pub fn is_read(pause: Duration) -> nix::Result<bool> {
    let stdout = io::stdout();
    let mut outputs = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    // Nothing is asked for but errors, which are always told.
    match poll(&mut outputs, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
        Ok(0) | Err(Errno::EINTR) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(to: &mut impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_it = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_but_a_full_disk_is() {
        assert!(write(&mut Failing(io::ErrorKind::BrokenPipe), "text").is_ok());
        assert!(write(&mut Failing(io::ErrorKind::StorageFull), "text").is_err());
        for (kind, expected) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let error = anyhow::Error::from(io::Error::from(kind)).context("cannot print");
            assert_eq!(is_closed_pipe(&error), expected);
        }
    }
}
