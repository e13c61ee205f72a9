//! Noticing that somebody changed the nft ruleset.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket};

/// `NFNLGRP_NFTABLES`: the kernel tells its members of every change of the ruleset.
const NFTABLES_GROUP: u32 = 7;

/// Datagrams are cut to this size: that there was one is all that counts.
const SCRAP_LEN: usize = 64;

/// Waits for changes of the nft ruleset of the network namespace it was made in, by whomever: also our own.
pub struct Watch(TokioSocket);

impl Watch {
    /// Starts watching. Must be called inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(NFTABLES_GROUP)?;
        Ok(Self(socket))
    }

    /// Returns when the ruleset has changed since the last call, once for all changes until now. What changed is
    /// not looked at: asking nft afterwards is simpler, and true. Nothing is lost when the future is dropped.
    pub async fn changed(&self) -> io::Result<()> {
        let mut scrap = [0; SCRAP_LEN];
        overrun_is_change(self.0.recv(&mut &mut scrap[..]).await)?;
        drain(self.0.socket_ref())
    }
}

/// Throws away all that has arrived.
fn drain(socket: &Socket) -> io::Result<()> {
    let mut scrap = [0; SCRAP_LEN];
    loop {
        match overrun_is_change(socket.recv(&mut &mut scrap[..], 0).map(drop)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        }
    }
}

/// More changes than the socket holds are a change, too.
fn overrun_is_change(received: io::Result<()>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        received => received,
    }
}
