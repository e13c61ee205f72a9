//! The programs that mark the sockets of this machine itself: attached to the root of cgroup2, by links that outlive the daemon.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{CgroupAttachMode, FdLink};
use aya::programs::{Program, ProgramError};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::attach::link_error;
use super::{DatapathError, Pins, io_error};

/// The programs, in the order in which they are attached: what takes marks away is there before what gives them.
const PROGRAMS: [&str; 7] = [
    "local_bind4",
    "local_bind6",
    "local_sendmsg4",
    "local_sendmsg6",
    "local_connect4",
    "local_connect6",
    "local_create",
];

/// Why the sockets of this machine are not marked.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Without the number of our network namespace, sockets of all others would be marked too.
    #[error("cannot tell our network namespace from others ({0}); this needs Linux 5.14")]
    Namespace(#[source] io::Error),
    /// The mounts could not be read.
    #[error("cannot read which file systems are mounted: {0}")]
    Mounts(#[source] io::Error),
    /// There is nothing to attach to.
    #[error("cgroup2 is not mounted")]
    NotMounted,
    /// There is, but it cannot be used.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object has no such program.
    #[error("the eBPF object has no {0}; it was not built from these sources")]
    Missing(&'static str),
    /// A program that the kernel does not accept.
    #[error("the kernel refuses the eBPF program {program} ({source}); this needs Linux 5.14")]
    Refused {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program that cannot be attached: where somebody has attached one for himself alone, no other can be.
    #[error("cannot attach {program} to {path}: {source}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A pin that cannot be removed.
    #[error(transparent)]
    Pin(#[from] Box<DatapathError>),
}

/// Where cgroup2 is mounted, according to the text of a `/proc/<pid>/mountinfo` (proc(5)): the first of its mounts that
/// shows all of it.
#[must_use]
pub fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        // id, parent, device, root, mount point
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let is_all = root == "/" && file_system.split(' ').next() == Some("cgroup2");
        is_all.then(|| unescaped(point))
    })
}

/// The number of the network namespace of the calling thread, which programs know it by.
pub(super) fn network_namespace() -> io::Result<u64> {
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: both pointers are to values that live as long as the call, and the length is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Has the programs run for all processes of the machine. Those of an earlier daemon go on until these are there, so no
/// socket goes by without one. If one fails, none is left.
pub(super) fn attach(programs: &mut Ebpf, pins: &Pins) -> Result<(), CgroupError> {
    let result = attach_all(programs, pins);
    if result.is_err() {
        detach(pins)?;
    }
    result
}

/// Has no programs run any more.
pub(super) fn detach(pins: &Pins) -> Result<(), CgroupError> {
    // The other way round than they were attached.
    for program in PROGRAMS.iter().rev() {
        for pin in [pin_of(pins, program), new_pin_of(pins, program)] {
            match fs::remove_file(&pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Box::new(io_error(pin)(error)).into());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether the programs of an instance run, whoever has attached them.
#[must_use]
pub fn marks_local_sockets(pins: &Pins) -> bool {
    PROGRAMS.iter().all(|program| pin_of(pins, program).exists())
}

/// Whether this pin is that of one of these programs' links.
pub(super) fn is_cgroup(pin: &Path) -> bool {
    let name = pin.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| PROGRAMS.contains(&name))
}

fn attach_all(programs: &mut Ebpf, pins: &Pins) -> Result<(), CgroupError> {
    network_namespace().map_err(CgroupError::Namespace)?;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").map_err(CgroupError::Mounts)?;
    let path = cgroup2_mount(&mounts).ok_or(CgroupError::NotMounted)?;
    let cgroup = File::open(&path).map_err(|source| CgroupError::Open { path: path.clone(), source })?;
    for name in PROGRAMS {
        let program = programs.program_mut(name).ok_or(CgroupError::Missing(name))?;
        load(program).map_err(|error| CgroupError::Refused { program: name, source: reason(error) })?;
    }
    for name in PROGRAMS {
        let program = programs.program_mut(name).ok_or(CgroupError::Missing(name))?;
        let attached = attach_to(program, &cgroup).and_then(|link| pin(link, pins, name));
        attached.map_err(|source| CgroupError::Attach {
            program: name,
            path: path.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSock(program) if program.fd().is_err() => program.load(),
        Program::CgroupSockAddr(program) if program.fd().is_err() => program.load(),
        _ => Ok(()),
    }
}

/// Why the kernel did not load a program, without the verifier's log of thousands of lines.
fn reason(error: ProgramError) -> io::Error {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error,
        error => io::Error::other(error),
    }
}

fn attach_to(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    // Links never exclude others, and are to have no flags.
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into().map_err(link_error)
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into().map_err(link_error)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Pins the link in the place of the one that is there, which ends with that.
fn pin(link: FdLink, pins: &Pins, program: &str) -> Result<(), ProgramError> {
    let (new, place) = (new_pin_of(pins, program), pin_of(pins, program));
    // Of a daemon that was killed here.
    let _ = fs::remove_file(&new);
    link.pin(&new).map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    fs::rename(new, place).map_err(ProgramError::IOError)
}

fn pin_of(pins: &Pins, program: &str) -> PathBuf {
    pins.links().join(program)
}

fn new_pin_of(pins: &Pins, program: &str) -> PathBuf {
    pins.links().join(format!("{program}-new"))
}

/// A path as mountinfo has it, where space, tab, newline and backslash are three octal digits after a backslash.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| after.split_at_checked(3))
            .flatten()
            .and_then(|(digits, after)| Some((octal(digits)?, after)));
        let (byte, next) = escaped.unwrap_or((first, after));
        bytes.push(byte);
        rest = next;
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Option<String> {
        cgroup2_mount(text).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let systemd = "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount(systemd).as_deref(), Some("/sys/fs/cgroup"));
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        let optional = "41 31 0:38 / /cg rw shared:7 master:2 propagate_from:1 - cgroup2 none rw";
        assert_eq!(mount(optional).as_deref(), Some("/cg"));
    }

    #[test]
    fn a_mount_of_a_part_of_it_is_not_enough() {
        let part = "41 31 0:38 /docker/1 /run/part rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(part), None);
        let both = format!("{part}42 31 0:38 / /run/all rw - cgroup2 cgroup2 rw\n");
        assert_eq!(mount(&both).as_deref(), Some("/run/all"));
    }

    #[test]
    fn without_cgroup2_there_is_none() {
        let first = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup2 rw,cpu\n";
        assert_eq!(mount(first), None);
        for text in ["", "\n", "41 31 0:38 /", "41 31 0:38 / /x rw", " - cgroup2", "1 2 3 / - cgroup2 c rw"] {
            assert_eq!(mount(text), None, "{text:?}");
        }
    }

    #[test]
    fn paths_are_unescaped() {
        let text = r"41 31 0:38 / /a\040b\134c\0 rw - cgroup2 cgroup2 rw";
        assert_eq!(mount(text).as_deref(), Some(r"/a b\c\0"));
        assert_eq!(mount(r"41 31 0:38 / /\999 rw - cgroup2 cgroup2 rw").as_deref(), Some(r"/\999"));
    }
}
