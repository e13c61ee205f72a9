//! Two stations that talk through the router, by frames that they make themselves.

use std::net::IpAddr;

use anyhow::Context;
use balance_lab::checksum::{self, Layout, be16, put};
use balance_lab::packet::{Extension, Ipv4, Ipv6, Mac, Payload, Segment, ether_type, frame, tcp_flag};
use balance_lab::{Family, Frame};

use crate::scene::{ALICE, BOB, CAROL, FORWARDED_PORT, INSIDE_PORT, SERVER, SOON, Scene, Station, addresses};
use crate::shot::{Fault, Form, Shot, Side, To, back, forth};

/// What the router does to the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Nothing: from one LAN to another.
    None,
    /// From a LAN to the internet, as the router itself.
    Masquerade,
    /// The same, with a port that somebody else in the LAN uses already.
    TakenPort,
    /// From the internet to a LAN, by a port forward.
    Forward,
    /// From a LAN to the router's public address, and by a port forward back into the LAN.
    Hairpin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    /// Echo requests and replies; their identifier is the port.
    Icmp,
}

/// What makes a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) nat: Nat,
    pub(crate) protocol: Protocol,
    pub(crate) family: Family,
}

type Endpoint = (IpAddr, u16);

#[derive(Debug)]
pub(crate) struct Conversation {
    opening: Opening,
    client: Station,
    server: Station,
    /// The client's own, and whom it talks to.
    near: (Endpoint, Endpoint),
    /// The server's own, and whom it talks to.
    far: (Endpoint, Endpoint),
    /// Of each side's next segment.
    sequences: [u32; 2],
    /// Of the next IPv4 packet.
    id: u16,
}

impl Conversation {
    /// Opens a conversation from a port of the client, so that conntrack knows it as answered.
    pub(crate) fn open(scene: &Scene, opening: Opening, port: u16) -> anyhow::Result<Self> {
        let Opening { nat, protocol, family } = opening;
        let (client, server) = match nat {
            Nat::None => (ALICE, CAROL),
            Nat::Masquerade => (ALICE, SERVER),
            Nat::TakenPort => (BOB, SERVER),
            Nat::Forward => (SERVER, ALICE),
            Nat::Hairpin => (ALICE, BOB),
        };
        let own = |station: Station, port| (station.address(family), port);
        let (dialed, listening) = match nat {
            Nat::Forward | Nat::Hairpin => ((scene.public(family), FORWARDED_PORT), own(server, INSIDE_PORT)),
            _ => (own(server, 443), own(server, 443)),
        };
        let near = (own(client, port), dialed);
        // Until the server has seen with whom it talks, it has nobody to talk to.
        let far = (listening, listening);
        let mut conversation = Self { opening, client, server, near, far, sequences: [1000, 2000], id: 1 };
        let [syn, ack] = [tcp_flag::SYN, tcp_flag::ACK];
        let first = Shot { flags: syn, ..forth(0) };
        let first = conversation.deliver(scene, &first)?;
        let layout = Layout::of(&first.bytes)?;
        let port = if protocol == Protocol::Icmp { layout.transport + 4 } else { layout.transport };
        conversation.far.1 = (addresses(&first.bytes, layout).0, be16(&first.bytes, port)?);
        conversation.sequences[0] += 1;
        conversation.deliver(scene, &Shot { flags: syn | ack, ..back(0) })?;
        conversation.sequences[1] += 1;
        conversation.deliver(scene, &forth(0))?;
        Ok(conversation)
    }

    /// Whether the server sees another port than the client has.
    pub(crate) fn has_other_port(&self) -> bool {
        self.near.0.1 != self.far.1.1
    }

    /// Sends one more packet each way that changes nothing, and waits for them.
    pub(crate) fn go_on(&mut self, scene: &Scene) -> anyhow::Result<()> {
        self.deliver(scene, &forth(0))?;
        self.deliver(scene, &back(0))?;
        Ok(())
    }

    /// Sends ordinary packets as long as these, which change nothing: whatever is said of them afterwards is not because
    /// nobody knew that such long packets pass.
    pub(crate) fn teach(&mut self, scene: &mut Scene, shots: &[Shot]) -> anyhow::Result<()> {
        let (sequences, id) = (self.sequences, self.id);
        for shot in shots {
            self.send(scene, &shot.ordinary())?;
            self.sequences = sequences;
        }
        self.id = id;
        scene.collect()?;
        Ok(())
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, scene: &Scene, shot: &Shot) -> anyhow::Result<()> {
        let port = scene.port(self.station(shot.from).place);
        let mut frames = self.frames(shot)?;
        if scene.shape.like_wires && matches!(shot.form, Form::Unsummed | Form::Super(_)) {
            // By itself, or the kernel would do it, and leave traces in the last segment that no wire carries.
            let finished: Vec<_> = frames.iter().map(Frame::on_the_wire).collect::<anyhow::Result<_>>()?;
            frames = finished.concat().into_iter().map(Frame::from).collect();
        }
        for frame in frames {
            port.send(&frame).with_context(|| format!("cannot send {shot:?}"))?;
        }
        Ok(())
    }

    fn station(&self, side: Side) -> Station {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Sends a packet and waits for it at the other side.
    fn deliver(&mut self, scene: &Scene, shot: &Shot) -> anyhow::Result<Frame> {
        let id = self.id;
        let other = if shot.from == Side::Client { Side::Server } else { Side::Client };
        let to = self.station(other);
        let port = match shot.from {
            Side::Client => self.far.0.1,
            Side::Server => self.near.0.1,
        };
        self.send(scene, shot)?;
        self.id = id;
        let address = to.address(self.opening.family);
        let is_it = |frame: &Frame| {
            let Ok(layout) = Layout::of(&frame.bytes) else { return false };
            let at = layout.transport + if layout.protocol == 17 || layout.protocol == 6 { 2 } else { 4 };
            // The identifier of an echo that the server sees is the router's to choose.
            let is_port = shot.from == Side::Client && self.opening.protocol == Protocol::Icmp
                || be16(&frame.bytes, at).is_ok_and(|found| found == port);
            is_port && addresses(&frame.bytes, layout).1 == address
        };
        let frame = scene.port(to.place).wait(SOON, is_it)?;
        frame.with_context(|| format!("{shot:?} of {self:?} did not arrive"))
    }

    /// The frames that a packet is sent as, of which there are several only if it is in fragments.
    fn frames(&mut self, shot: &Shot) -> anyhow::Result<Vec<Frame>> {
        let payload =
            if let Some(error) = shot.error { self.error(shot.from, error) } else { self.payload(shot) };
        let packet = self.packet(shot, &payload, None);
        let mut bytes = self.framed(shot, &packet);
        checksum::complete(&mut bytes)?;
        let layout = Layout::of(&bytes)?;
        if !shot.udp_checksum {
            put(&mut bytes, layout.transport + 6, 0)?;
        }
        match shot.fault {
            Some(Fault::Network) => bytes[layout.network + 11] ^= 1,
            // The last byte of what the checksum covers.
            Some(Fault::Transport) => bytes[layout.end - 1] ^= 1,
            None => {}
        }
        let transport = Payload::new(payload.protocol, &bytes[layout.transport..]);
        bytes.extend(vec![0; shot.padding]);
        let frames = match shot.form {
            Form::Whole => vec![bytes.into()],
            Form::Fragments(size) => self.fragments(shot, &transport, size)?,
            Form::Unsummed => vec![Frame::unsummed(bytes)?],
            Form::Super(size) => vec![Frame::super_packet(bytes, size)?],
        };
        self.id += 1;
        Ok(frames)
    }

    fn fragments(&self, shot: &Shot, payload: &Payload, size: usize) -> anyhow::Result<Vec<Frame>> {
        let count = payload.bytes.len().div_ceil(size);
        let parts = payload.bytes.chunks(size).enumerate().map(|(index, part)| {
            let part = Payload::new(payload.protocol, part);
            let offset = u16::try_from(index * size / 8)?;
            let packet = self.packet(shot, &part, Some((offset, index + 1 < count)));
            let mut bytes = self.framed(shot, &packet);
            checksum::complete(&mut bytes)?;
            Ok(bytes.into())
        });
        parts.collect()
    }

    fn payload(&mut self, shot: &Shot) -> Payload {
        let ((_, own), (_, peer)) = self.view(shot.from);
        let data: Vec<u8> = (0..shot.data).map(|at| (at * 31 + at / 256 + 7).to_le_bytes()[0]).collect();
        match self.opening.protocol {
            Protocol::Tcp => {
                let [first, second] = self.sequences;
                let (sequence, acknowledgement) = match shot.from {
                    Side::Client => (first, second),
                    Side::Server => (second, first),
                };
                let ends = u32::from(shot.flags & tcp_flag::FIN != 0);
                self.sequences[shot.from as usize] += u32::try_from(data.len()).unwrap() + ends;
                let (flags, options) = (shot.flags, shot.tcp_options);
                let acknowledgement = if flags & tcp_flag::ACK == 0 { 0 } else { acknowledgement };
                Payload::segment(
                    own,
                    peer,
                    &Segment { sequence, acknowledgement, flags, options, data: &data },
                )
            }
            Protocol::Udp => Payload::udp(own, peer, &data),
            Protocol::Icmp => {
                let identifier = if shot.from == Side::Client { own } else { peer };
                let [high, low] = identifier.to_be_bytes();
                let rest = [high, low, 0, 1];
                match (self.opening.family, shot.from) {
                    (Family::V4, Side::Client) => Payload::icmp(8, rest, &data),
                    (Family::V4, Side::Server) => Payload::icmp(0, rest, &data),
                    (Family::V6, Side::Client) => Payload::icmp_v6(128, rest, &data),
                    (Family::V6, Side::Server) => Payload::icmp_v6(129, rest, &data),
                }
            }
        }
    }

    /// An ICMP error about a packet of the other side, as that came to this one.
    fn error(&mut self, from: Side, (kind, code): (u8, u8)) -> Payload {
        let (own, peer) = self.view(from);
        let before = self.sequences;
        let about =
            Shot { from: if from == Side::Client { Side::Server } else { Side::Client }, ..forth(32) };
        let mut payload = self.payload(&about);
        self.sequences = before;
        if self.opening.protocol == Protocol::Icmp {
            // The identifier is the one that this side knows.
            let identifier = if from == Side::Client { own.1 } else { peer.1 };
            payload.bytes[4..6].copy_from_slice(&identifier.to_be_bytes());
        } else {
            payload.bytes[0..2].copy_from_slice(&peer.1.to_be_bytes());
            payload.bytes[2..4].copy_from_slice(&own.1.to_be_bytes());
        }
        let packet = ip(peer.0, own.0, &about, 77, &payload, None);
        let mut quoted = frame(Mac([0; 6]), Mac([0; 6]), &[], ether_of(self.opening.family), &packet);
        checksum::complete(&mut quoted).unwrap();
        // What it says of the MTU, where it says something of it.
        let rest = [0, 0, 0x05, 0x14];
        let mut error = match self.opening.family {
            Family::V4 => Payload::icmp(kind, rest, &quoted[14..]),
            Family::V6 => Payload::icmp_v6(kind, rest, &quoted[14..]),
        };
        error.bytes[1] = code;
        error
    }

    fn packet(&self, shot: &Shot, payload: &Payload, fragment: Option<(u16, bool)>) -> Vec<u8> {
        let ((own, _), (peer, _)) = self.view(shot.from);
        let peer = match self.opening.family {
            Family::V4 if shot.to == To::Group => IpAddr::from([239, 255, 0, 7]),
            Family::V6 if shot.to == To::Group => IpAddr::from([0xff0e, 0, 0, 0, 0, 0, 0, 7]),
            _ => peer,
        };
        ip(own, peer, shot, self.id, payload, fragment)
    }

    fn framed(&self, shot: &Shot, packet: &[u8]) -> Vec<u8> {
        let from = self.station(shot.from);
        let to = match (shot.to, self.opening.family) {
            (To::Router, _) => from.place.router_mac(),
            (To::Device(mac), _) => mac,
            (To::Group, Family::V4) => Mac([1, 0, 0x5e, 0x7f, 0, 7]),
            (To::Group, Family::V6) => Mac([0x33, 0x33, 0, 0, 0, 7]),
        };
        frame(to, from.mac(), shot.tags, ether_of(self.opening.family), packet)
    }

    /// Its own address and port, and those that it talks to.
    fn view(&self, side: Side) -> (Endpoint, Endpoint) {
        match side {
            Side::Client => self.near,
            Side::Server => self.far,
        }
    }
}

fn ip(
    from: IpAddr,
    to: IpAddr,
    shot: &Shot,
    id: u16,
    payload: &Payload,
    fragment: Option<(u16, bool)>,
) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet =
                Ipv4::new(from, to).ttl(shot.ttl).tos(shot.tos).id(id).dont_fragment(shot.dont_fragment);
            if shot.ip_options {
                packet = packet.options(1);
            }
            if let Some((offset, more)) = fragment {
                packet = packet.fragment(offset, more);
            }
            packet.carrying(payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = Ipv6::new(from, to).hop_limit(shot.ttl).traffic_class(shot.tos);
            packet = packet.flow_label(shot.flow_label);
            if shot.ip_options {
                packet = packet.extension(Extension::destination_options(0));
            }
            if let Some((offset, more)) = fragment {
                packet = packet.extension(Extension::fragment(offset, more));
            }
            packet.carrying(payload)
        }
        _ => panic!("both ends have one family"),
    }
}

fn ether_of(family: Family) -> u16 {
    match family {
        Family::V4 => ether_type::IPV4,
        Family::V6 => ether_type::IPV6,
    }
}
