//! The CLI's side: asking.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Request, Response};
use crate::daemon::Instance;

const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens.
    #[error("the daemon of instance {0} is not running; start it with `balance-user run`")]
    NotRunning(String),
    /// It listens but not to us.
    #[error("not allowed to talk to the daemon of instance {0}; this needs root")]
    Forbidden(String),
    /// It did not answer, or nonsense.
    #[error("the daemon of instance {instance} does not answer: {source}")]
    NoAnswer {
        /// The instance.
        instance: String,
        /// Why.
        source: io::Error,
    },
}

/// Asks the instance's daemon and waits for the answer, five seconds at most.
pub fn ask(instance: &Instance, request: &Request) -> Result<Response, ControlError> {
    let name = || instance.name().to_owned();
    let stream = UnixStream::connect(instance.control_socket()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(name()),
        io::ErrorKind::PermissionDenied => ControlError::Forbidden(name()),
        _ => ControlError::NoAnswer { instance: name(), source: error },
    })?;
    exchange(stream, request).map_err(|source| ControlError::NoAnswer { instance: name(), source })
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Response> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
