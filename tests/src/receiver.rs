//! Servers that take what the daemon announces: mail by SMTP, and JSON by HTTP.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Host;
use crate::background::{Background, PATIENCE};

/// How long one that speaks to a server may be silent.
const SILENCE: Duration = Duration::from_secs(5);

/// What a server does with those who come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes what they bring.
    Take,
    /// Says nothing, ever: not even to those who come then, if it does something else later.
    Hang,
    /// Sends them away for now: 451 by SMTP, 503 by HTTP.
    Later,
    /// Sends them away for good: 550 by SMTP, 400 by HTTP.
    Refuse,
}

/// A server that keeps what it was brought, until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _background: Background<()>,
}

struct State {
    manner: Manner,
    asked: u64,
    taken: Vec<String>,
}

impl Receiver {
    /// A mail server (RFC 5321) on `host`. What it takes is the lines `MAIL FROM` and `RCPT TO`, and the mail.
    ///
    /// # Errors
    /// When the address is not the host's or the port is taken; port 0 takes a free one.
    pub fn smtp(host: &Host, address: SocketAddr) -> io::Result<Self> {
        Self::start(host, address, smtp)
    }

    /// A web server (HTTP/1.1) on `host`. What it takes is the head of the request, an empty line, and the body.
    ///
    /// # Errors
    /// As [`Receiver::smtp`].
    pub fn http(host: &Host, address: SocketAddr) -> io::Result<Self> {
        Self::start(host, address, http)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does something else from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).manner = manner;
    }

    /// How many have come.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    /// What it has taken so far.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    fn start(host: &Host, address: SocketAddr, serve: Serve) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State { manner: Manner::Take, asked: 0, taken: Vec::new() }));
        let shared = Arc::clone(&state);
        let open = move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let work = move |listener: TcpListener, stop: &AtomicBool| {
            answer(&listener, stop, &shared, serve);
            Ok(())
        };
        let (background, address) = Background::start(host, open, work)?;
        Ok(Self { address, state, _background: background })
    }
}

/// Speaks with one that has come, and returns what it has brought.
type Serve = fn(&TcpStream, Manner) -> io::Result<Option<String>>;

fn answer(listener: &TcpListener, stop: &AtomicBool, state: &Mutex<State>, serve: Serve) {
    let mut hanging = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(PATIENCE);
            continue;
        };
        let manner = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked += 1;
            state.manner
        };
        if manner == Manner::Hang {
            hanging.push(stream);
            continue;
        }
        let patient = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(SILENCE)));
        // One that goes away in the middle has brought nothing.
        if let Ok(Some(text)) = patient.and_then(|()| serve(&stream, manner)) {
            state.lock().unwrap_or_else(PoisonError::into_inner).taken.push(text);
        }
    }
}

fn smtp(stream: &TcpStream, manner: Manner) -> io::Result<Option<String>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let say = |text: &str| (&mut &*stream).write_all(format!("{text}\r\n").as_bytes());
    say("220 lab ready")?;
    let (mut envelope, mut taken) = (String::new(), None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(taken);
        }
        let line = line.trim_end();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match (verb.as_str(), manner) {
            ("EHLO" | "HELO", _) => say("250 lab")?,
            ("MAIL", Manner::Later) => say("451 come back later")?,
            ("MAIL", Manner::Refuse) => say("550 not here")?,
            ("MAIL" | "RCPT", _) => {
                envelope.extend([line, "\n"]);
                say("250 good")?;
            }
            ("DATA", _) => {
                say("354 go on")?;
                let mut mail = envelope.clone();
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line)? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    mail += &line.strip_prefix('.').unwrap_or(&line).replace("\r\n", "\n");
                }
                taken = Some(mail);
                say("250 taken")?;
            }
            ("QUIT", _) => {
                say("221 bye")?;
                return Ok(taken);
            }
            _ => say("500 what?")?,
        }
    }
}

fn http(stream: &TcpStream, manner: Manner) -> io::Result<Option<String>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let status = match manner {
        Manner::Take | Manner::Hang => "200 OK",
        Manner::Later => "503 Service Unavailable",
        Manner::Refuse => "400 Bad Request",
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    (&mut &*stream).write_all(answer.as_bytes())?;
    Ok((manner == Manner::Take).then(|| head + &String::from_utf8_lossy(&body)))
}
