//! Who is at the other end of the control socket, and what he may do.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid};
use tokio::net::UnixStream;

use crate::config::{ControlConfig, ReadableBy};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rights {
    /// Nothing.
    None,
    /// See everything.
    Read,
    /// Change everything, too.
    Change,
}

/// Who has connected, as the kernel noted it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Uid,
    gids: Vec<Gid>,
}

impl Peer {
    /// The other end of a connection.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut gids = supplementary(stream)?;
        gids.push(Gid::from_raw(credentials.gid()));
        Ok(Self { uid: Uid::from_raw(credentials.uid()), gids })
    }

    /// What it may do, if the group of the config is this one.
    pub(super) fn rights(&self, group: Option<Gid>, readable_by: ReadableBy) -> Rights {
        if self.uid.is_root() || group.is_some_and(|group| self.gids.contains(&group)) {
            Rights::Change
        } else if readable_by == ReadableBy::All {
            Rights::Read
        } else {
            Rights::None
        }
    }
}

/// The group of the config; none if there is no such group.
pub(super) fn group(config: &ControlConfig) -> Option<Gid> {
    Group::from_name(&config.group).ok().flatten().map(|group| group.gid)
}

/// The supplementary groups of the other end, which the credentials leave out: `SO_PEERGROUPS` of socket(7), Linux 4.13.
fn supplementary(stream: &UnixStream) -> io::Result<Vec<Gid>> {
    let mut gids: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let size = gids.len() * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes to the vector, which has as many, and any bytes are group ids.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                gids.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                gids.truncate(count);
                return Ok(gids.into_iter().map(Gid::from_raw).collect());
            }
            // It says how many there are.
            Err(Errno::ERANGE) if count > gids.len() => gids.resize(count, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_group_may_change_and_others_read_at_most() {
        let gid = Gid::from_raw;
        let peer = |uid, gids: &[u32]| Peer {
            uid: Uid::from_raw(uid),
            gids: gids.iter().copied().map(gid).collect(),
        };
        let balance = Some(gid(7));
        for (peer, group, readable_by, expected) in [
            (peer(0, &[0]), None, ReadableBy::Group, Rights::Change),
            (peer(9, &[7]), balance, ReadableBy::Group, Rights::Change),
            (peer(9, &[3, 7, 9]), balance, ReadableBy::All, Rights::Change),
            (peer(9, &[9]), balance, ReadableBy::Group, Rights::None),
            (peer(9, &[9]), balance, ReadableBy::All, Rights::Read),
            (peer(9, &[0]), balance, ReadableBy::All, Rights::Read),
            (peer(9, &[7]), None, ReadableBy::Group, Rights::None),
        ] {
            assert_eq!(peer.rights(group, readable_by), expected, "{peer:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_kernel_tells_all_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.uid, Uid::effective());
        assert!(peer.gids.contains(&Gid::effective()));
        for gid in nix::unistd::getgroups().unwrap() {
            assert!(peer.gids.contains(&gid), "{gid}");
        }
    }
}
