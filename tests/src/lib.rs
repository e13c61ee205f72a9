//! The lab: networks of namespaces with real packets.
//!
//! A [`Lab`] is LAN hosts, a router, ISPs and an internet host, each a [`Host`]: namespaces without a name, held by
//! file descriptors of this process only. However the process ends, nothing stays behind, and any number of labs run
//! side by side. The router is a plain Linux machine with addresses and default routes; everything else is the
//! daemon's job.
//!
//! Traffic is real sockets: [`Flow`] and [`Flows`] ask the internet host which address it sees, [`Stream`] asks all the
//! time, [`send_one_way`] only sends, [`Echo`] pings, [`Transfers`] move bytes in bulk and compare them, and [`flood`] does harm;
//! a [`Port`] sends and receives whole frames, a [`Tunnel`] carries packets as dial-up lines and VPNs do. [`Isp`] fails in every way
//! an ISP fails. [`Dump`] tells what is left behind.

pub mod addresses;
mod background;
mod browser;
pub mod checks;
pub mod checksum;
mod child;
mod counter;
mod daemon;
mod delegation;
mod dump;
mod echo;
pub mod figures;
mod flood;
mod flow;
mod flow_cache;
mod host;
pub mod http;
mod isp;
mod lab;
mod mounts;
mod notify;
mod office;
mod offloads;
pub mod packet;
mod port;
mod ready;
mod receiver;
mod server;
pub mod status;
mod steering;
mod stream;
mod terminal;
mod transfer;
mod tunnel;
mod wire;

pub use balance_common::Family;
pub use browser::Browser;
pub use child::Child;
pub use counter::Counter;
pub use daemon::{Daemon, Output, binary};
pub use dump::Dump;
pub use echo::Echo;
pub use flood::flood;
pub use flow::{Flow, Flows, ask_tcp, by_source, open_flows, open_new_flows, send_one_way};
pub use host::Host;
pub use isp::{Forwarded, Isp, IspSpec};
pub use lab::{Builder, Lab};
pub use office::Office;
pub use port::{Cut, Frame, Partial, Port};
pub use ready::{ready, ready_with, wait_until};
pub use receiver::{Manner, Receiver};
pub use server::{Server, Sink, serve_tcp, serve_udp};
pub use steering::{LOOPBACK, Outcome, Program, Steering};
pub use stream::{Stream, StreamReport};
pub use terminal::Terminal;
pub use transfer::{Tally, TransferServer, Transferred, Transfers};
pub use tunnel::Tunnel;
pub use wire::{KINDS, Transport};
