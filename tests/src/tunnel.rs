//! Tun devices, and programs that carry their packets, as dial-up lines and VPNs do.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::Host;
use crate::background::PATIENCE;
use crate::wire::milliseconds;

/// The longest packet that is carried.
const LONGEST: usize = 2048;
/// How long to wait for more while packets are on their way.
const SHORT_PATIENCE: Duration = Duration::from_millis(1);

/// A tun device on each of two machines, without addresses, and the program between them; dropping it ends that.
pub struct Tunnel {
    carried: Arc<AtomicU64>,
    /// In milliseconds.
    delay: Arc<AtomicU64>,
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

    /// From now on packets take so long, in milliseconds, in each direction.
    pub fn set_delay(&self, milliseconds: u64) {
        self.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Carries packets between the ends of each pair.
    fn start(pairs: Vec<[End; 2]>) -> io::Result<Self> {
        let (carried, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let delay = Arc::<AtomicU64>::default();
        let (count, flag, wanted) = (Arc::clone(&carried), Arc::clone(&stop), Arc::clone(&delay));
        let mut lines: Vec<Line> = pairs.into_iter().map(Line::new).collect();
        let program = std::thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let is_waiting = lines.iter().any(Line::is_waiting);
                let ends = lines.iter().flat_map(|line| &line.ends);
                let mut polled: Vec<_> = ends.map(|end| PollFd::new(end.fd(), PollFlags::POLLIN)).collect();
                let patience = if is_waiting { SHORT_PATIENCE } else { PATIENCE };
                // When that fails there may be packets all the same.
                let _ = poll(&mut polled, milliseconds(patience));
                let delay = Duration::from_millis(wanted.load(Ordering::Relaxed));
                for line in &mut lines {
                    line.carry(delay, &count);
                }
            }
        })?;
        Ok(Self { carried, delay, stop, program: Some(program) })
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

/// Two ends, and what is on its way to each.
struct Line {
    ends: [End; 2],
    on_the_way: [VecDeque<(Instant, Vec<u8>)>; 2],
}

impl Line {
    fn new(ends: [End; 2]) -> Self {
        Self { ends, on_the_way: Default::default() }
    }

    fn is_waiting(&self) -> bool {
        self.on_the_way.iter().any(|packets| !packets.is_empty())
    }

    /// Takes what there is, counts it, and hands over what has been on its way for long enough.
    fn carry(&mut self, delay: Duration, carried: &AtomicU64) {
        let now = Instant::now();
        let mut packet = [0; LONGEST];
        // What comes from the one is on its way to the other.
        for (from, packets) in self.ends.iter_mut().zip(self.on_the_way.iter_mut().rev()) {
            while let Some(content) = from.receive(&mut packet).ok().and_then(|length| packet.get(..length)) {
                // Before somebody can have received it.
                carried.fetch_add(1, Ordering::Relaxed);
                packets.push_back((now + delay, content.to_vec()));
            }
        }
        for (to, packets) in self.ends.iter_mut().zip(&mut self.on_the_way) {
            while let Some((_, packet)) = packets.pop_front_if(|(due, _)| *due <= now) {
                // Full, or not up: lost, as on any line.
                let _ = to.send(&packet);
            }
        }
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
