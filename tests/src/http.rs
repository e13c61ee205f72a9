//! Asking by HTTP/1.1, one request a connection.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::Host;

/// How long whoever is asked may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with its query.
    pub path: &'a str,
    /// Lines of the head besides the length of the body, `Host: localhost` and `Connection: close`.
    pub headers: &'a [&'a str],
    /// The body.
    pub body: &'a str,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The lines of the head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl<'a> Query<'a> {
    /// `GET` of a path.
    #[must_use]
    pub fn get(path: &'a str) -> Self {
        Self { method: "GET", path, headers: &[], body: "" }
    }

    /// Another method, with a body.
    #[must_use]
    pub fn new(method: &'a str, path: &'a str, body: &'a str) -> Self {
        Self { method, path, headers: &[], body }
    }

    /// Asks at a Unix socket of this host.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn at_socket(&self, host: &Host, socket: &str) -> io::Result<Reply> {
        host.run(|| self.send(UnixStream::connect(socket)?))
    }

    /// Asks at a TCP port of this host, on `127.0.0.1`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn at_port(&self, host: &Host, port: u16) -> io::Result<Reply> {
        host.run(|| {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(SILENCE))?;
            self.send(stream)
        })
    }

    /// Asks the other end of a stream.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, mut stream: impl Read + Write) -> io::Result<Reply> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            head += "Host: localhost\r\n";
        }
        for line in self.headers {
            let _ = write!(head, "{line}\r\n");
        }
        let _ = write!(head, "Connection: close\r\nContent-Length: {}\r\n\r\n", self.body.len());
        stream.write_all((head + self.body).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let wrong = || io::Error::other(format!("no answer of HTTP: {head}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: u64 = length.and_then(|length| length.trim().parse().ok()).ok_or_else(wrong)?;
        let mut body = String::new();
        reader.take(length).read_to_string(&mut body)?;
        Ok(Reply { status, head, body })
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}
