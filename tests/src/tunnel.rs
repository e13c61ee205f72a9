//! Point-to-point lines: tun devices.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Host;
use crate::background::PATIENCE;

/// Where a `struct ifreq` (netdevice(7)) has its flags: behind the name.
const FLAGS: usize = libc::IFNAMSIZ;
/// How long a `struct ifreq` is.
const IFREQ: usize = 40;
/// The longest packet that is carried.
const LONGEST: usize = 2048;
/// How long to wait for more while packets are on their way.
const SHORT_PATIENCE: Duration = Duration::from_millis(1);

/// A tun device of one machine that carries its packets to another machine's. Both devices go with it.
pub struct Tunnel {
    stop: Arc<AtomicBool>,
    /// In milliseconds.
    delay: Arc<AtomicU64>,
    pump: Option<JoinHandle<io::Result<()>>>,
}

impl Tunnel {
    /// Makes a device of this name on each machine, without addresses, and down.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn between(one: (&Host, &str), other: (&Host, &str)) -> io::Result<Self> {
        let [one_end, other_end] = [one, other].map(|(host, name)| host.run(|| open(name)));
        let ends = [one_end?, other_end?];
        let (stop, delay) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (flag, wanted) = (Arc::clone(&stop), Arc::clone(&delay));
        // A thread of no machine: it needs the files of both.
        let pump = std::thread::spawn(move || carry(&ends, &flag, &wanted));
        Ok(Self { stop, delay, pump: Some(pump) })
    }

    /// From now on packets take so long, in milliseconds, in each direction.
    pub fn set_delay(&self, milliseconds: u64) {
        self.delay.store(milliseconds, Ordering::Relaxed);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.pump.take().map(JoinHandle::join);
    }
}

fn carry([one, other]: &[File; 2], stop: &AtomicBool, delay: &AtomicU64) -> io::Result<()> {
    let mut packet = [0; LONGEST];
    let mut ways = [(one, other, VecDeque::new()), (other, one, VecDeque::new())];
    while !stop.load(Ordering::Relaxed) {
        let is_waiting = ways.iter().any(|(_, _, waiting)| !waiting.is_empty());
        let mut polled = [one, other].map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        let patience = if is_waiting { SHORT_PATIENCE } else { PATIENCE };
        poll(&mut polled, PollTimeout::try_from(patience).map_err(io::Error::other)?)?;
        let (now, delay) = (Instant::now(), Duration::from_millis(delay.load(Ordering::Relaxed)));
        for (from, to, waiting) in &mut ways {
            while let Ok(length) = from.read(&mut packet) {
                waiting.push_back((now + delay, packet.get(..length).unwrap_or_default().to_vec()));
            }
            while let Some((_, packet)) = waiting.pop_front_if(|(due, _)| *due <= now) {
                // Full, or not up: lost, as on any line.
                let _ = to.write(&packet);
            }
        }
    }
    Ok(())
}

/// The other side of a tun device of the calling thread's machine.
fn open(name: &str) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    let mut request = [0_u8; IFREQ];
    let name = name.bytes().take(libc::IFNAMSIZ - 1);
    request.iter_mut().zip(name).for_each(|(to, from)| *to = from);
    request.iter_mut().skip(FLAGS).zip(flags.to_ne_bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which is as long as this array and lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}
