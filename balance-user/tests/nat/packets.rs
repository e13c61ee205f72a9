//! Real packets through a router with two ISPs: LAN host - router - two ISPs - a host on the internet.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use balance_common::IspId;
use balance_user::nat::{Ipv6Nat, NatIsp, nft, nft_table};
use nix::sys::socket::{setsockopt, sockopt};

use crate::netns::Netns;

const MASK: u32 = 0x3f00;
/// A bit of the marks that belongs to somebody else.
const FOREIGN: u32 = 0x4000_0000;

/// Addresses of one family.
struct Family {
    lan_host: &'static str,
    /// The router's own, by ISP.
    router: [&'static str; 2],
    /// The first ISP gave the router a second one.
    router_second: &'static str,
    router_lan: &'static str,
    internet: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        lan_host: "10.0.0.2",
        router: ["192.0.2.2", "198.51.100.2"],
        router_second: "192.0.2.3",
        router_lan: "10.0.0.1",
        internet: "203.0.113.1",
    },
    Family {
        lan_host: "fd00::2",
        router: ["2001:db8:1::2", "2001:db8:2::2"],
        router_second: "2001:db8:1::3",
        router_lan: "fd00::1",
        internet: "2001:db8::1",
    },
];

struct World {
    lan: Netns,
    router: Netns,
    internet: Netns,
}

impl World {
    /// The router routes by mark; without one, by the first ISP. The ISPs drop packets with a source that is not
    /// theirs, as real ones do.
    fn new() -> Option<Self> {
        let world = Self { lan: Netns::new()?, router: Netns::new()?, internet: Netns::new()? };
        let Self { lan, router, internet } = &world;
        lan.join("eth0", router, "lan0");
        router.join("isp1", internet, "to1");
        router.join("isp2", internet, "to2");
        for (netns, device, addresses) in [
            (lan, "eth0", &["10.0.0.2/24", "fd00::2/64"][..]),
            (router, "lan0", &["10.0.0.1/24", "fd00::1/64"]),
            (router, "isp1", &["192.0.2.2/24", "192.0.2.3/24", "2001:db8:1::3/64", "2001:db8:1::2/64"]),
            (router, "isp2", &["198.51.100.2/24", "2001:db8:2::2/64"]),
            (internet, "to1", &["192.0.2.1/24", "2001:db8:1::1/64"]),
            (internet, "to2", &["198.51.100.1/24", "2001:db8:2::1/64"]),
            (internet, "lo", &["203.0.113.1/32", "2001:db8::1/128"]),
        ] {
            for address in addresses {
                netns.ip(&format!("address add {address} dev {device}"));
            }
        }
        lan.ip("route add default via 10.0.0.1");
        lan.ip("route add default via fd00::1");
        router.run(|| {
            for key in ["ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
            }
        });
        for (isp, v4, v6) in [(1, "192.0.2.1", "2001:db8:1::1"), (2, "198.51.100.1", "2001:db8:2::1")] {
            for (family, gateway) in [("-4", v4), ("-6", v6)] {
                let table = 1000 + isp;
                router.ip(&format!("{family} route add default via {gateway} table {table}"));
                router.ip(&format!("{family} rule add priority 200 fwmark 0x{isp}00/0x3f00 table {table}"));
                if isp == 1 {
                    router.ip(&format!("{family} rule add priority 100 table main suppress_prefixlength 0"));
                    router.ip(&format!("{family} route add default via {gateway}"));
                }
            }
        }
        internet.nft(
            "table inet isps {
                chain input { type filter hook input priority 0;
                    iifname to1 ip saddr != 192.0.2.0/24 drop
                    iifname to2 ip saddr != 198.51.100.0/24 drop
                    iifname to1 meta l4proto != ipv6-icmp ip6 saddr != 2001:db8:1::/64 drop
                    iifname to2 meta l4proto != ipv6-icmp ip6 saddr != 2001:db8:2::/64 drop
                }
            }",
        );
        world.apply();
        Some(world)
    }

    fn apply(&self) {
        let isps = [1, 2].map(|id| NatIsp {
            id: IspId::new(id).unwrap(),
            device: format!("isp{id}"),
            ipv6: Ipv6Nat::default(),
        });
        self.router.block_on(async || nft::apply(&nft_table("balance", MASK, &isps)).await).unwrap();
    }

    /// Stamps this ISP's mark on every packet from the LAN, as the eBPF program does for new flows, and foreign
    /// bits on packets and flows, as somebody else may.
    fn steer(&self, isp: u32) {
        let mark = FOREIGN | isp << 8;
        self.router.nft(&format!(
            "table inet steer {{}}
             delete table inet steer
             table inet steer {{
                chain prerouting {{ type filter hook prerouting priority -190;
                    iifname lan0 meta mark set {mark:#x}
                    ct mark set ct mark | {FOREIGN:#x}
                }}
                chain forward {{ type filter hook forward priority 0;
                    iifname lan0 meta mark & {FOREIGN:#x} == 0 drop
                }}
             }}"
        ));
    }

    /// The conntrack mark of the router's flow from that address and port.
    fn ct_mark(&self, source: &str, port: u16) -> u32 {
        let text = ["ipv4", "ipv6"].map(|f| self.router.command(&format!("conntrack -L -f {f}"))).concat();
        let flow = text.lines().find(|line| {
            line.contains(&format!(" src={source} ")) && line.contains(&format!(" sport={port} "))
        });
        let mark = flow.and_then(|line| line.split(" mark=").nth(1)?.split_whitespace().next());
        mark.unwrap_or_else(|| panic!("a flow from {source} port {port}: {text}")).parse().unwrap()
    }
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn udp(netns: &Netns, address: &str, port: u16) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind(socket(address, port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Sends one datagram and its answer. Returns the source that the server saw.
fn exchange(client: &UdpSocket, server: &UdpSocket) -> IpAddr {
    let mut buffer = [0; 16];
    client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
    let (_, source) = server.recv_from(&mut buffer).expect("arrives");
    server.send_to(b"pong", source).unwrap();
    client.recv_from(&mut buffer).expect("is answered");
    source.ip()
}

/// Connects, and gets one byte through in each direction.
fn talk(client: &Netns, from: SocketAddr, to: SocketAddr, listener: &TcpListener) {
    let mut near = client.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(from), socket2::Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_secs(10)).expect("connects");
        TcpStream::from(socket)
    });
    let (mut far, _) = listener.accept().unwrap();
    let mut byte = [0];
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    near.write_all(b"a").unwrap();
    far.read_exact(&mut byte).expect("gets there");
    far.write_all(b"b").unwrap();
    near.read_exact(&mut byte).expect("comes back");
}

#[test]
fn a_flow_is_masqueraded_and_keeps_its_isp_whatever_mark_its_packets_carry() {
    let Some(world) = World::new() else { return };
    for Family { lan_host, router, internet, .. } in FAMILIES {
        let server = udp(&world.internet, internet, 53);
        let isp = |index: usize| router[index].parse::<IpAddr>().unwrap();

        world.steer(2);
        let first = udp(&world.lan, lan_host, 1001);
        assert_eq!(exchange(&first, &server), isp(1), "leaves where it is steered");
        assert_eq!(world.ct_mark(lan_host, 1001), FOREIGN | 0x200, "the foreign bit is still there");

        world.steer(1);
        assert_eq!(exchange(&first, &server), isp(1), "an old flow stays");
        let second = udp(&world.lan, lan_host, 1002);
        assert_eq!(exchange(&second, &server), isp(0), "a new flow goes where it is steered");
        assert_eq!(world.ct_mark(lan_host, 1002), FOREIGN | 0x100);
    }
}

#[test]
fn replies_to_inbound_connections_leave_by_the_isp_they_came_in_on() {
    let Some(world) = World::new() else { return };
    world.router.nft(
        "table inet forwards { chain prerouting { type nat hook prerouting priority dstnat;
            tcp dport 81 dnat ip to 10.0.0.2
            tcp dport 81 dnat ip6 to fd00::2
        }; }",
    );
    // Whatever comes from the LAN would go by the first if nothing held it back, as does what the router sends.
    world.steer(1);
    for Family { lan_host, router, internet, .. } in FAMILIES {
        for (netns, address, port) in [(&world.router, router[1], 80), (&world.lan, lan_host, 81)] {
            let listener = netns.run(|| TcpListener::bind(socket(address, port))).unwrap();
            talk(&world.internet, socket(internet, 2000 + port), socket(router[1], port), &listener);
            assert_eq!(world.ct_mark(internet, 2000 + port) & MASK, 0x200);
        }
    }
}

#[test]
fn the_routers_own_addresses_are_kept_and_only_those_of_the_device() {
    let Some(world) = World::new() else { return };
    for Family { router, router_second, router_lan, internet, .. } in FAMILIES {
        let server = udp(&world.internet, internet, 53);
        for (port, from, seen) in [
            (3001, router[0], router[0]),
            (3002, router_second, router_second),
            // No ISP would take these.
            (3003, router_lan, router[0]),
            (3004, router[1], router[0]),
        ] {
            let client = udp(&world.router, from, port);
            assert_eq!(exchange(&client, &server), seen.parse::<IpAddr>().unwrap(), "from {from}");
            assert_eq!(world.ct_mark(from, port), 0x100);
        }
    }
}

#[test]
fn probes_with_a_mark_of_their_own_are_left_alone() {
    let Some(world) = World::new() else { return };
    for Family { router, internet, .. } in FAMILIES {
        let server = udp(&world.internet, internet, 53);
        for (port, isp) in [(4001, 0), (4002, 1)] {
            let probe = udp(&world.router, router[isp], port);
            let mark = [0x100, 0x200][isp];
            setsockopt(&probe, sockopt::Mark, &mark).unwrap();
            setsockopt(&probe, sockopt::BindToDevice, &["isp1", "isp2"][isp].into()).unwrap();
            for _ in 0..2 {
                assert_eq!(exchange(&probe, &server), router[isp].parse::<IpAddr>().unwrap());
            }
            assert_eq!(world.ct_mark(router[isp], port), mark);
        }
    }
}

#[test]
fn flows_older_than_the_table_are_tied_to_the_isp_that_answers() {
    let Some(world) = World::new() else { return };
    // Without a table that wants it there would be no conntrack.
    world.router.nft(
        "table inet firewall { chain input { type filter hook input priority 0; ct state new accept; }; }",
    );
    for Family { router, internet, .. } in FAMILIES {
        world.router.block_on(async || nft::remove("balance").await).unwrap();
        let server = udp(&world.internet, internet, 53);
        let client = udp(&world.router, router[1], 5001);
        setsockopt(&client, sockopt::Mark, &0x200).unwrap();
        exchange(&client, &server);
        assert_eq!(world.ct_mark(router[1], 5001), 0);

        world.apply();
        exchange(&client, &server);
        assert_eq!(world.ct_mark(router[1], 5001), 0x200);
        setsockopt(&client, sockopt::Mark, &0).unwrap();
        assert_eq!(exchange(&client, &server), router[1].parse::<IpAddr>().unwrap());
    }
}

#[test]
fn a_mark_that_a_socket_of_the_router_sets_is_kept() {
    // The mark of wg-quick, by which it keeps its own packets out of its tunnel; it has bits in our mask by chance.
    const VPN: u32 = 0xca6c;
    let Some(world) = World::new() else { return };
    world.router.nft(
        "table inet observer {
            counter kept { }
            chain output { type filter hook output priority 0; meta mark 0xca6c counter name kept; }
        }",
    );
    for Family { router, internet, .. } in FAMILIES {
        let [source, _] = router;
        world.router.run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
            setsockopt(&socket, sockopt::Mark, &VPN).unwrap();
            for _ in 0..3 {
                socket.send_to(b"tunnel", SocketAddr::new(internet.parse().unwrap(), 51820)).unwrap();
            }
        });
    }
    let counter = world.router.command("nft list counter inet observer kept");
    assert!(counter.contains("packets 6 "), "{counter}");
}
