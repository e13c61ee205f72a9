//! Tun devices, and programs that carry their packets, as dial-up lines and VPNs do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::Host;
use crate::background::PATIENCE;
use crate::wire::milliseconds;

/// A tun device on each of two machines, without addresses, and the program between them; dropping it ends that.
pub struct Tunnel {
    carried: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    program: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Carries packets from one to the other out of band, as on a wire. The devices have these names.
    ///
    /// # Errors
    /// Without tun devices, or when a machine has a device of that name.
    pub fn between(one: (&Host, &str), other: (&Host, &str)) -> io::Result<Self> {
        Self::start(vec![[End::tun(one)?, End::tun(other)?]])
    }

    /// Carries packets in UDP from `near` to a port of `far`, and back to where the last packet came from, as WireGuard does.
    /// What leaves `near` has this mark. Both devices are `tun0`.
    ///
    /// # Errors
    /// As [`Tunnel::between`], and when the port is taken.
    pub fn by_udp(near: &Host, far: &Host, to: SocketAddr, mark: u32) -> io::Result<Self> {
        let inner = [End::tun((near, "tun0"))?, End::tun((far, "tun0"))?];
        let out = near.run(|| udp(SocketAddr::new([0; 4].into(), 0)))?;
        setsockopt(&out, sockopt::Mark, &mark)?;
        let answer = far.run(|| udp(SocketAddr::new([0; 4].into(), to.port())))?;
        let [near, far] = inner;
        Self::start(vec![
            [near, End::Udp { socket: out, peer: Some(to) }],
            [far, End::Udp { socket: answer, peer: None }],
        ])
    }

    /// How many packets it has read, from devices and sockets.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Carries packets between the ends of each pair.
    fn start(mut pairs: Vec<[End; 2]>) -> io::Result<Self> {
        let (carried, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, flag) = (Arc::clone(&carried), Arc::clone(&stop));
        let program = std::thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            let mut packet = [0; 2048];
            while !flag.load(Ordering::Relaxed) {
                let ends = pairs.iter().flatten();
                let mut polled: Vec<_> = ends.map(|end| PollFd::new(end.fd(), PollFlags::POLLIN)).collect();
                // When that fails there may be packets all the same.
                let _ = poll(&mut polled, milliseconds(PATIENCE));
                for [one, other] in &mut pairs {
                    carry(one, other, &mut packet, &count);
                    carry(other, one, &mut packet, &count);
                }
            }
        })?;
        Ok(Self { carried, stop, program: Some(program) })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.program.take().map(JoinHandle::join);
    }
}

/// Where packets come from and go to.
enum End {
    /// The other side of a tun device.
    Tun(File),
    /// A socket, and who sent to it last.
    Udp { socket: UdpSocket, peer: Option<SocketAddr> },
}

impl End {
    fn tun((host, name): (&Host, &str)) -> io::Result<Self> {
        host.run(|| tun(name)).map(Self::Tun)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(file) => file.as_fd(),
            Self::Udp { socket, .. } => socket.as_fd(),
        }
    }

    fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tun(file) => file.read(packet),
            Self::Udp { socket, peer } => {
                let (length, from) = socket.recv_from(packet)?;
                *peer = Some(from);
                Ok(length)
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tun(file) => file.write(packet),
            Self::Udp { socket, peer } => socket.send_to(packet, peer.ok_or(io::ErrorKind::NotConnected)?),
        }
    }
}

/// Carries what there is, and counts it.
fn carry(from: &mut End, to: &mut End, packet: &mut [u8], carried: &AtomicU64) {
    while let Some(content) = from.receive(packet).ok().and_then(|length| packet.get(..length)) {
        // Before somebody can have received it.
        carried.fetch_add(1, Ordering::Relaxed);
        // Full, or not up: lost, as on any line.
        let _ = to.send(content);
    }
}

/// Makes a device of this name on the calling thread's machine.
fn tun(name: &str) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: a `struct ifreq` is of integers and pointers, of which all bits may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
