//! Frames as devices of the kernel hand them over, and as they stand on the wire.

use std::io;

use anyhow::{Context, ensure};

use crate::checksum::{self, Layout, be16, put};
use crate::packet::tcp_flag;

/// Length of `struct virtio_net_hdr` of `linux/virtio_net.h`, in bytes.
const HEADER: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
/// In the kind of cut: congestion has been signalled.
const ECN: u8 = 0x80;

/// A frame, and what is left to do with it before it is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// The checksum that is left to the device.
    pub partial: Option<Partial>,
    /// How the packet is to be cut into smaller ones, if it is.
    pub cut: Option<Cut>,
}

/// A checksum that is only started: it has the sum over the pseudo header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// From where on to sum up, in bytes of the frame.
    pub start: u16,
    /// Where from there to put the checksum, in bytes.
    pub offset: u16,
}

/// A packet that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `VIRTIO_NET_HDR_GSO_*` of `linux/virtio_net.h`.
    pub kind: u8,
    /// Bytes of transport payload in each of them; the last one may have less.
    pub size: u16,
}

impl From<Vec<u8>> for Frame {
    /// A frame that is complete.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, partial: None, cut: None }
    }
}

impl Frame {
    /// Makes a frame with TCP or UDP one that stands for several with so many bytes of payload each, as a socket does
    /// that hands over more than fits (GSO).
    ///
    /// # Errors
    /// When it is not such a frame.
    pub fn super_packet(bytes: Vec<u8>, size: u16) -> anyhow::Result<Self> {
        let layout = Layout::of(&bytes)?;
        let kind = match (layout.version, layout.protocol) {
            (4, 6) => 1,
            (_, 6) => 4,
            (_, 17) => 5,
            (_, other) => anyhow::bail!("protocol {other} is not cut"),
        };
        Ok(Self { cut: Some(Cut { kind, size }), ..Self::unsummed(bytes)? })
    }

    /// Makes a frame one whose transport checksum is left to the device, as a socket does.
    ///
    /// # Errors
    /// When it has none.
    pub fn unsummed(mut bytes: Vec<u8>) -> anyhow::Result<Self> {
        // The IPv4 header's own checksum is never left to the device.
        checksum::complete(&mut bytes)?;
        let (start, offset) = checksum::start(&mut bytes)?;
        let partial = Partial { start: start.try_into()?, offset: offset.try_into()? };
        Ok(Self { bytes, partial: Some(partial), cut: None })
    }

    /// The complete frames that come of it on the wire, without padding.
    ///
    /// # Errors
    /// When what is left to do is not what has to be done, such as a checksum that is started wrongly.
    pub fn on_the_wire(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let Some(partial) = self.partial else {
            ensure!(self.cut.is_none(), "a packet to be cut whose checksum is complete");
            let mut bytes = self.bytes.clone();
            if let Ok(layout) = Layout::of(&bytes) {
                bytes.truncate(layout.end);
            }
            return Ok(vec![bytes]);
        };
        checksum::verify_start(&self.bytes, partial.start.into(), partial.offset.into())?;
        let Some(cut) = self.cut else {
            let mut bytes = self.bytes.clone();
            checksum::complete(&mut bytes)?;
            return Ok(vec![bytes]);
        };
        self.cut(cut)
    }

    fn cut(&self, cut: Cut) -> anyhow::Result<Vec<Vec<u8>>> {
        let layout = Layout::of(&self.bytes)?;
        let (expected, header) = match (layout.version, layout.protocol) {
            (version, 6) => {
                let words = self.bytes.get(layout.transport + 12).context("no TCP header")? >> 4;
                (if version == 4 { 1 } else { 4 }, usize::from(words) * 4)
            }
            _ => (5, 8),
        };
        ensure!(cut.kind & !ECN == expected, "{cut:?} is not for {layout:?}");
        ensure!(cut.size > 0, "cut into nothing");
        let payload = layout.transport + header;
        let (header, data) = self
            .bytes
            .get(..layout.end)
            .and_then(|packet| packet.split_at_checked(payload))
            .context("no payload")?;
        let count = data.len().div_ceil(cut.size.into());
        let parts = data.chunks(cut.size.into()).enumerate();
        parts.map(|(index, data)| part(layout, header, data, index, index + 1 == count, cut.size)).collect()
    }

    /// `struct virtio_net_hdr`, which says what is left to do.
    pub(super) fn header(&self) -> Vec<u8> {
        let partial = self.partial.unwrap_or(Partial { start: 0, offset: 0 });
        let cut = self.cut.unwrap_or(Cut { kind: 0, size: 0 });
        let flags = if self.partial.is_some() { NEEDS_CHECKSUM } else { 0 };
        // How long the headers are: at least up to the checksum. The kernel finds out by itself.
        let length = if self.cut.is_some() { partial.start + partial.offset + 2 } else { 0 };
        let lengths = [length, cut.size, partial.start, partial.offset].map(u16::to_ne_bytes);
        [&[flags, cut.kind][..], lengths.as_flattened()].concat()
    }

    /// What the kernel handed over, that header first.
    pub(super) fn received(bytes: &[u8]) -> io::Result<Self> {
        let (header, bytes) = bytes.split_first_chunk::<HEADER>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (&[flags, kind], lengths) = header.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let lengths: Vec<u16> = lengths.as_chunks().0.iter().copied().map(u16::from_ne_bytes).collect();
        let [_, size, start, offset] = lengths[..] else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let partial = Partial { start, offset };
        Ok(Self {
            bytes: bytes.to_vec(),
            partial: (flags & NEEDS_CHECKSUM != 0).then_some(partial),
            cut: (kind != 0).then_some(Cut { kind, size }),
        })
    }

    /// Puts a VLAN tag, which the kernel keeps elsewhere, where it stands on the wire.
    pub(super) fn put_tag_back(&mut self, kind: u16, tag: u16) {
        let (kind, tag) = (kind.to_be_bytes(), tag.to_be_bytes());
        let at = self.bytes.len().min(12);
        self.bytes.splice(at..at, kind.into_iter().chain(tag));
        if let Some(partial) = &mut self.partial {
            partial.start += 4;
        }
    }
}

/// One of the packets that a super-packet stands for.
fn part(
    layout: Layout,
    header: &[u8],
    data: &[u8],
    index: usize,
    is_last: bool,
    size: u16,
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = [header, data].concat();
    let Layout { network, transport, .. } = layout;
    if layout.version == 4 {
        put(&mut bytes, network + 2, u16::try_from(header.len() + data.len() - network)?)?;
        let id = be16(&bytes, network + 4)?.wrapping_add(u16::try_from(index)?);
        put(&mut bytes, network + 4, id)?;
    } else {
        put(&mut bytes, network + 4, u16::try_from(header.len() + data.len() - network - 40)?)?;
    }
    if layout.protocol == 17 {
        put(&mut bytes, transport + 4, u16::try_from(8 + data.len())?)?;
    } else {
        let sequence = bytes.get_mut(transport + 4..).and_then(<[u8]>::first_chunk_mut);
        let sequence: &mut [u8; 4] = sequence.context("no sequence number")?;
        let offset = u32::try_from(index)? * u32::from(size);
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(offset).to_be_bytes();
        let flags = bytes.get_mut(transport + 13).context("no flags")?;
        if index > 0 {
            *flags &= !tcp_flag::CWR;
        }
        if !is_last {
            *flags &= !(tcp_flag::FIN | tcp_flag::PSH);
        }
    }
    checksum::complete(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ipv4, Ipv6, Payload, Segment, ether_type, ethernet};

    fn tcp(data: &[u8]) -> Vec<u8> {
        let flags = tcp_flag::ACK | tcp_flag::PSH;
        let segment = Segment { sequence: u32::MAX, acknowledgement: 5, flags, options: &[], data };
        let packet = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        ethernet(&[], ether_type::IPV4, &packet.carrying(&Payload::segment(1, 2, &segment)))
    }

    #[test]
    fn a_super_packet_becomes_its_segments() {
        let frame = Frame::super_packet(tcp(&[7; 25]), 10).unwrap();
        assert_eq!(Frame::received(&[&frame.header()[..], &frame.bytes].concat()).unwrap(), frame);
        let parts = frame.on_the_wire().unwrap();
        let [one, two, three] = &parts[..] else { panic!("{parts:?}") };
        for part in &parts {
            checksum::verify(part).unwrap();
        }
        assert_eq!((one.len(), two.len(), three.len()), (64, 64, 59));
        assert_eq!([one, two, three].map(|part| part[19]), [7, 8, 9], "the id");
        assert_eq!([one, two, three].map(|part| part[41]), [255, 9, 19], "the sequence number");
        assert_eq!([one, two, three].map(|part| part[47]), [16, 16, 24], "PSH is of the last");
    }

    #[test]
    fn udp_is_cut_too() {
        let v6 = Ipv6::new("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let bytes = ethernet(&[], ether_type::IPV6, &v6.carrying(&Payload::udp(1, 2, &[7; 15])));
        let parts = Frame::super_packet(bytes, 8).unwrap().on_the_wire().unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [70, 69]);
        for part in &parts {
            checksum::verify(part).unwrap();
        }
    }

    #[test]
    fn a_checksum_that_is_started_wrongly_is_noticed() {
        let mut frame = Frame::super_packet(tcp(&[7; 25]), 10).unwrap();
        frame.bytes[30] ^= 1;
        frame.on_the_wire().unwrap_err();
    }

    #[test]
    fn padding_is_no_part_of_a_packet() {
        let mut bytes = tcp(&[]);
        checksum::complete(&mut bytes).unwrap();
        let padded = [&bytes[..], &[0; 6]].concat();
        assert_eq!(Frame::from(padded).on_the_wire().unwrap(), [bytes]);
    }
}
