//! What probes ask besides pings: a page and a name, and an ISP's portal that keeps its customers from the page.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Host;
use crate::background::{Background, PATIENCE};
use crate::server::unless_timeout;

/// The page and the name server of the internet host.
pub(super) const SITE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Where a portal answers that others are redirected to.
pub(super) const PORTAL_PORT: u16 = 8080;
/// What browsers and phones look for a portal with.
const NOTHING: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// What they find there.
const LOG_IN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nplease log in\n";
/// How long a server waits for a question.
const SLOW: Duration = Duration::from_secs(1);

/// Servers that answer until they are dropped.
pub(super) struct Services {
    _all: Vec<Background<()>>,
}

impl Services {
    /// Starts the page and the name server of the internet host.
    pub(super) fn start(internet: &Host) -> io::Result<Self> {
        let page = serve_page(internet, SocketAddr::new(SITE.into(), 80), NOTHING)?;
        Ok(Self { _all: vec![page, serve_names(internet)?] })
    }

    /// Starts a portal on an ISP's machine.
    pub(super) fn portal(isp: &Host) -> io::Result<Self> {
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORTAL_PORT);
        Ok(Self { _all: vec![serve_page(isp, address, LOG_IN)?] })
    }
}

/// Answers every request with the same.
fn serve_page(host: &Host, address: SocketAddr, answer: &'static str) -> io::Result<Background<()>> {
    let open = move || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener, ()))
    };
    let (background, ()) = Background::start(host, open, move |listener, stop| {
        while !stop.load(Ordering::Relaxed) {
            match unless_timeout(listener.accept())? {
                // Whoever goes away without a question does not want to know.
                Some((mut stream, _)) => drop(
                    stream
                        .set_read_timeout(Some(SLOW))
                        .and_then(|()| stream.read(&mut [0; 2048]))
                        .and_then(|_| stream.write_all(answer.as_bytes())),
                ),
                None => std::thread::sleep(PATIENCE),
            }
        }
        Ok(())
    })?;
    Ok(background)
}

/// Says that every name is [`SITE`]'s.
fn serve_names(host: &Host) -> io::Result<Background<()>> {
    let open = || {
        let socket = UdpSocket::bind(SocketAddr::new(SITE.into(), 53))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok((socket, ()))
    };
    let (background, ()) = Background::start(host, open, |socket, stop| {
        let mut question = [0; 512];
        while !stop.load(Ordering::Relaxed) {
            if let Some((length, peer)) = unless_timeout(socket.recv_from(&mut question))?
                && let Some(answer) = question.get(..length).and_then(answer)
            {
                // Where it cannot be sent the asker will find it missing.
                let _ = socket.send_to(&answer, peer);
            }
        }
        Ok(())
    })?;
    Ok(background)
}

/// The question with an answer behind it (RFC 1035, 4.1): the bit QR, one answer, whose name is that of the question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const POINTER: [u8; 2] = [0xc0, 12];
    const ADDRESS_IN_FOR_A_SECOND: [u8; 10] = [0, 1, 0, 1, 0, 0, 0, 1, 0, 4];
    let (header, rest) = question.split_first_chunk::<12>()?;
    let mut header = *header;
    header[2] |= 0x80;
    header[7] = 1;
    Some([&header, rest, &POINTER, &ADDRESS_IN_FOR_A_SECOND, &SITE.octets()].concat())
}
