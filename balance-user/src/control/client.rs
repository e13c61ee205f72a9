//! The CLI's side: asking.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Request, Response, api};
use crate::daemon::Instance;

const PATIENCE: Duration = Duration::from_secs(5);
/// More than the longest answer.
const MAX_ANSWER: u64 = 16 << 20;
/// More than the headers that the daemon sends.
const MAX_HEADERS: usize = 32;
/// What one who may not ask is answered.
const FORBIDDEN: u16 = 403;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens.
    #[error("the daemon of instance {0} is not running; start it with `balance-user run`")]
    NotRunning(String),
    /// It listens but not to us.
    #[error(
        "not allowed to ask the daemon of instance {0} for this; that needs root or the group of [control]"
    )]
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
    let no_answer = |source| ControlError::NoAnswer { instance: name(), source };
    let stream = UnixStream::connect(instance.control_socket()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(name()),
        io::ErrorKind::PermissionDenied => ControlError::Forbidden(name()),
        _ => no_answer(error),
    })?;
    let answer = exchange(stream, request).map_err(no_answer)?;
    let (status, body) = split(&answer).map_err(no_answer)?;
    if status == FORBIDDEN {
        return Err(ControlError::Forbidden(name()));
    }
    serde_json::from_slice(body).map_err(|error| no_answer(error.into()))
}

/// Sends the request on a connection of its own, and returns all that comes back.
fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (method, path, body) = api::asked_as(request)?;
    let length = body.len();
    let mut message = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    message.extend(body);
    stream.write_all(&message)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body of an answer after which the connection was closed.
fn split(answer: &[u8]) -> io::Result<(u16, &[u8])> {
    let cut_off = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(answer).map_err(io::Error::other)? else {
        return Err(cut_off());
    };
    let said = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let said = said.and_then(|header| str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let body = answer.get(length..).unwrap_or_default();
    if said != Some(body.len()) {
        return Err(cut_off());
    }
    Ok((head.code.unwrap_or_default(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_whole_body() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\ndate: x\r\n\r\n{}";
        assert_eq!(split(answer).unwrap(), (404, b"{}".as_slice()));
        for length in 0..answer.len() {
            assert!(split(&answer[..length]).is_err(), "{length}");
        }
        assert!(split(b"hello\r\n\r\n").is_err());
    }
}
