//! Deleting, counting and adopting conntrack entries, made by the `conntrack` tool.

use std::collections::BTreeMap;
use std::net::IpAddr;

use balance_common::{Family, IspId};
use balance_user::conntrack::{
    Cut, IspMark, adopt, count_by_mark, cut_by_mark, delete_by_mark, free_tcp_of_windows, lose, provoke,
};

use crate::netns::Netns;

const MASK: u32 = 0x3f00;

fn id(number: u8) -> IspId {
    IspId::new(number).unwrap()
}

fn mark(number: u8) -> IspMark {
    IspMark::new(id(number), MASK).unwrap()
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

/// An entry as the router makes it: opened by `source` to `destination`, replies sent to `reply_to`.
fn insert(netns: &Netns, port: u16, [source, destination, replier, reply_to]: [&str; 4], mark: u32) {
    netns.command(&format!(
        "conntrack -I -p udp -t 600 -s {source} -d {destination} -r {replier} -q {reply_to} --sport {port} \
         --dport 53 --reply-port-src 53 --reply-port-dst {port} -m {mark}"
    ));
}

/// The mark of the entry with that source port.
fn mark_of(netns: &Netns, port: u16) -> String {
    let entries =
        ["ipv4", "ipv6"].map(|f| netns.command(&format!("conntrack -L -f {f} -p udp --sport {port}")));
    let text = entries.concat();
    let mark = text.split_whitespace().find_map(|word| word.strip_prefix("mark="));
    mark.unwrap_or_else(|| panic!("an entry of port {port}: {text}")).to_owned()
}

const V4: [&str; 4] = ["10.0.0.2", "203.0.113.1", "203.0.113.1", "192.0.2.2"];
const V6: [&str; 4] = ["fd00::2", "2001:db8::1", "2001:db8::1", "2001:db8:1::2"];

#[test]
fn deleting_removes_exactly_one_isps_entries_of_one_family() {
    let Some(netns) = Netns::new() else { return };
    for (port, mark) in [(1, 0), (2, 0x100), (3, 0x200), (4, 0x4000_0200), (5, 0x300), (6, 0x2)] {
        insert(&netns, port, V4, mark);
        insert(&netns, port, V6, mark);
    }
    let count = || netns.run(|| count_by_mark(MASK)).unwrap();
    assert_eq!(count(), BTreeMap::from([(id(1), 2), (id(2), 4), (id(3), 2)]));
    netns.run(|| delete_by_mark(mark(2), Family::V4)).unwrap();
    assert_eq!(count(), BTreeMap::from([(id(1), 2), (id(2), 2), (id(3), 2)]), "IPv6 stays");
    netns.run(|| delete_by_mark(mark(2), Family::V6)).unwrap();
    assert_eq!(count(), BTreeMap::from([(id(1), 2), (id(3), 2)]));
    netns.run(|| delete_by_mark(mark(2), Family::V6)).expect("none left is fine");
    assert_eq!(netns.command("conntrack -C").trim(), "8", "foreign and unmarked entries stay");
}

#[test]
fn old_flows_are_adopted_by_the_isp_whose_address_they_use() {
    let Some(netns) = Netns::new() else { return };
    insert(&netns, 1, V4, 0);
    insert(&netns, 2, V6, 0x4000_0000);
    insert(&netns, 3, ["203.0.113.1", "198.51.100.2", "10.0.0.2", "203.0.113.1"], 0);
    insert(&netns, 4, ["10.0.0.2", "10.1.0.2", "10.1.0.2", "10.0.0.2"], 0);
    insert(&netns, 5, V4, 0x200);
    insert(&netns, 6, ["10.0.0.2", "203.0.113.1", "203.0.113.1", "192.168.1.2"], 0);
    let isps = [
        (mark(1), addresses(&["192.0.2.2", "2001:db8:1::2", "192.168.1.2"])),
        (mark(2), addresses(&["198.51.100.2", "192.168.1.2"])),
    ];
    assert_eq!(netns.run(|| adopt(MASK, &isps)).unwrap(), 3);
    assert_eq!(mark_of(&netns, 1), 0x100.to_string(), "hidden behind the first");
    assert_eq!(mark_of(&netns, 2), 0x4000_0100.to_string(), "IPv6, foreign bits kept");
    assert_eq!(mark_of(&netns, 3), 0x200.to_string(), "came in to the second");
    assert_eq!(mark_of(&netns, 4), "0", "none of theirs");
    assert_eq!(mark_of(&netns, 5), 0x200.to_string(), "had one already");
    assert_eq!(mark_of(&netns, 6), "0", "an address of both says nothing");
    assert_eq!(netns.run(|| adopt(MASK, &isps)).unwrap(), 0, "nothing is left to adopt");
}

#[test]
fn entries_are_adopted_and_counted_over_many_batches_and_datagrams() {
    const FLOWS: u16 = 1000;
    let Some(netns) = Netns::new() else { return };
    let script: Vec<_> = (1..=FLOWS)
        .map(|port| {
            format!(
                "-I -p udp -t 600 -s 10.0.0.2 -d 203.0.113.1 -r 203.0.113.1 -q 192.0.2.2 --sport {port} \
                 --dport 53 --reply-port-src 53 --reply-port-dst {port}\n"
            )
        })
        .collect();
    netns.command_with_input("conntrack -R -", &script.concat());
    let isps = [(mark(63), addresses(&["192.0.2.2"]))];
    assert_eq!(netns.run(|| adopt(MASK, &isps)).unwrap(), usize::from(FLOWS));
    assert_eq!(netns.run(|| count_by_mark(MASK)).unwrap(), BTreeMap::from([(id(63), u64::from(FLOWS))]));
}

#[test]
fn tcp_connections_and_nothing_else_are_freed_of_their_windows() {
    const FLOWS: u16 = 200;
    let Some(netns) = Netns::new() else { return };
    insert(&netns, 1, V4, 0x100);
    insert(&netns, 1, V6, 0);
    let script: Vec<_> = (1..=FLOWS)
        .map(|port| {
            format!(
                "-I -p tcp --state ESTABLISHED -t 600 -s 10.0.0.2 -d 10.1.0.2 --sport {port} --dport 53 -m {}\n",
                port % 2
            )
        })
        .collect();
    netns.command_with_input("conntrack -R -", &script.concat());
    netns
        .command("conntrack -I -p tcp --state ESTABLISHED -t 600 -s fd00::2 -d fd01::2 --sport 1 --dport 53");
    let before = netns.command("conntrack -L -o id");
    assert_eq!(netns.run(free_tcp_of_windows).unwrap(), usize::from(FLOWS) + 1);
    let states = |text: &str| text.matches("ESTABLISHED").count();
    assert_eq!(states(&netns.command("conntrack -L -o id")), states(&before), "states stay");
}

#[test]
fn open_connections_of_one_isp_and_family_are_lost_and_all_else_of_it_is_deleted() {
    let Some(netns) = Netns::new() else { return };
    let tcp = |port: u16, state: &str, mark: u32, v6: bool| {
        let [source, destination] = if v6 { ["fd00::2", "2001:db8::1"] } else { ["10.0.0.2", "203.0.113.1"] };
        format!(
            "-I -p tcp --state {state} -t 600 -s {source} -d {destination} --sport {port} --dport 80 -m {mark}\n"
        )
    };
    let open = ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK"];
    let closed = ["SYN_SENT", "TIME_WAIT", "CLOSE"];
    let mut script = String::new();
    for (state, port) in open.into_iter().chain(closed).zip(1..) {
        for (mark, first) in [(0x4000_0200, 0), (0x100, 100)] {
            script += &tcp(first + port, state, mark, false);
            script += &tcp(first + port, state, mark, true);
        }
    }
    // More than a batch, and than a datagram.
    script.extend((1000..2000).map(|port| tcp(port, "ESTABLISHED", 0x200, false)));
    netns.command_with_input("conntrack -R -", &script);
    insert(&netns, 1, V4, 0x200);
    insert(&netns, 1, V6, 0x200);

    let cut = |connections, flows| Cut { connections, flows };
    let lost = IspMark::lost(MASK).unwrap();
    assert_eq!(netns.run(|| lose(mark(2), Family::V4, lost)).unwrap(), cut(1005, 4));
    // Of the second ISP IPv6 is left; of the first one all.
    let expected = BTreeMap::from([(id(1), 16), (id(2), 9), (id(63), 1005)]);
    assert_eq!(netns.run(|| count_by_mark(MASK)).unwrap(), expected);
    let foreign = netns.command("conntrack -L -p tcp --mark 0x40003f00");
    assert_eq!(foreign.matches("mark=").count(), 5, "bits of others are kept: {foreign}");
    assert_eq!(netns.run(|| provoke(lost)).unwrap(), 1005, "though nothing can be sent from here");
    assert_eq!(netns.run(|| lose(mark(2), Family::V4, lost)).unwrap(), cut(0, 0));
    assert_eq!(netns.run(|| cut_by_mark(mark(2), Family::V6)).unwrap(), cut(0, 9));
    assert_eq!(netns.run(|| count_by_mark(MASK)).unwrap(), BTreeMap::from([(id(1), 16), (id(63), 1005)]));
}
