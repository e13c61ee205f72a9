//! The servers of the internet host. What they say to whom, a closure decides.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use balance_lab::Host;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long a server waits for whoever does not go on.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks whether it should stop.
const TICK: Duration = Duration::from_millis(20);

/// How what wants TLS begins (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Threads that end with this.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The status line, headers and body for whoever asks for a path from an address.
pub(crate) type Pages = dyn Fn(IpAddr, &str) -> String + Send + Sync;

/// Serves pages at these addresses, by TLS if there is a certificate.
pub(crate) fn serve_pages(
    host: &Host,
    addresses: &[SocketAddr],
    tls: Option<&Arc<ServerConfig>>,
    pages: &Arc<Pages>,
) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = addresses.iter().map(|&address| {
        let listener = host.run(|| TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, tls, pages) = (Arc::clone(&stop), tls.cloned(), Arc::clone(pages));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, peer)) = listener.accept() else {
                    std::thread::sleep(TICK);
                    continue;
                };
                let (tls, pages) = (tls.clone(), Arc::clone(&pages));
                // Whoever breaks the connection off does not want to know.
                std::thread::spawn(move || drop(serve_page(stream, peer.ip(), tls, &*pages)));
            }
        })
    });
    let threads = threads.collect();
    Running { stop, threads }
}

fn serve_page(
    stream: TcpStream,
    peer: IpAddr,
    tls: Option<Arc<ServerConfig>>,
    pages: &Pages,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match tls {
        None => talk(stream, peer, pages),
        Some(tls) => {
            let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
            talk(StreamOwned::new(connection, stream), peer, pages)
        }
    }
}

fn talk(mut stream: impl Read + Write, peer: IpAddr, pages: &Pages) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if !byte[0].is_ascii() || byte[0] == TLS_HANDSHAKE {
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    stream.write_all(pages(peer, path).as_bytes())?;
    stream.flush()
}

/// What a name server says.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Addresses(Vec<IpAddr>),
    Code(RCODE),
    Nothing,
}

/// What it says to whoever asks for a name from an address.
pub(crate) type Zone = dyn Fn(IpAddr, &str) -> Says + Send + Sync;

/// Answers questions about names at these addresses.
pub(crate) fn serve_names(host: &Host, addresses: &[SocketAddr], zone: &Arc<Zone>) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = addresses.iter().map(|&address| {
        let socket = host.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        let (stop, zone) = (Arc::clone(&stop), Arc::clone(zone));
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(&buffer[..length], peer.ip(), &*zone)
                {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        })
    });
    let threads = threads.collect();
    Running { stop, threads }
}

fn answer(question: &[u8], peer: IpAddr, zone: &Zone) -> Option<Vec<u8>> {
    let mut packet = Packet::parse(question).ok()?.into_reply();
    packet.set_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE);
    let asked = packet.questions.first()?;
    let (name, kind) = (asked.qname.clone(), asked.qtype);
    match zone(peer, &name.to_string()) {
        Says::Nothing => return None,
        Says::Code(code) => *packet.rcode_mut() = code,
        Says::Addresses(addresses) => {
            for address in addresses {
                let data = match (address, kind) {
                    (IpAddr::V4(v4), QTYPE::TYPE(TYPE::A)) => RData::A(A::from(v4)),
                    (IpAddr::V6(v6), QTYPE::TYPE(TYPE::AAAA)) => RData::AAAA(AAAA::from(v6)),
                    _ => continue,
                };
                packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 1, data));
            }
        }
    }
    packet.build_bytes_vec_compressed().ok()
}

/// Somebody who certifies who others are.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// What makes programs believe it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server that can prove to have these names and addresses.
    pub(crate) fn certify(&self, names: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.unwrap())
    }
}

/// Where the servers are, in both families.
pub(crate) fn at(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv4Addr::new(203, 0, 113, 80), port).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80), port).into(),
    ]
}
