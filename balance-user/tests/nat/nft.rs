//! Putting the table into the kernel.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use balance_common::IspId;
use balance_user::config::{Config, OwnRules};
use balance_user::core::plan::NftTable;
use balance_user::nat::{
    Installed, Ipv6Nat, NatIsp, NftError, Standing, Watch, draft, local_chains, nft, nft_table,
};
use futures::FutureExt as _;

use crate::netns::Netns;

const MASK: u32 = 0x3f00;

fn isps(count: u8) -> Vec<NatIsp> {
    (1..=count)
        .map(|id| NatIsp {
            id: IspId::new(id).unwrap(),
            device: format!("isp{id}.7"),
            ipv6: Ipv6Nat::default(),
        })
        .collect()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("happens soon")
}

#[test]
fn nft_accepts_the_table_for_any_number_of_isps() {
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        for count in [0, 1, 2, 63] {
            let table = nft_table("balance", MASK, &isps(count));
            nft::apply(&table).await.unwrap();
            let first = nft::list("balance").await.unwrap().unwrap();
            nft::apply(&table).await.unwrap();
            assert_eq!(nft::list("balance").await.unwrap(), Some(first), "again, with {count} ISPs");
        }
        let odd =
            [NatIsp { id: IspId::new(1).unwrap(), device: "a;b$(c)*".to_owned(), ipv6: Ipv6Nat::default() }];
        nft::apply(&nft_table("balance", 0x8000_0000, &odd)).await.unwrap();
        nft::apply(&nft_table("balance", u32::MAX, &odd)).await.unwrap();
    });
}

#[test]
fn nft_accepts_what_any_config_adds_and_lists_it_the_same_after_packets_have_changed_sets() {
    use std::fmt::Write as _;
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        for (isps, lans, forwards) in [(1, 0, 0), (2, 1, 2), (63, 20, 200)] {
            let mut text = String::new();
            for number in 1..=isps {
                writeln!(text, "[[isp]]\nname = \"I{number}\"\ndevice = \"a;b$(c){number}\"").unwrap();
            }
            for number in 0..lans {
                writeln!(text, "[[lan]]\nname = \"{}{number:02}\"\ndevice = \"l{number}\"", "L".repeat(29)).unwrap();
            }
            for number in 1..=forwards {
                let to = if number % 2 == 0 { "10.0.0.1" } else { "fd00::1" };
                let ports = format!("[{number}, \"{}-{}\"]", 1000 + 10 * number, 1009 + 10 * number);
                writeln!(text, "[[forward]]\nport = {ports}\nprotocol = [\"tcp\", \"udp\"]\nto = \"{to}\"").unwrap();
                if number % 3 == 0 {
                    writeln!(text, "to_port = {number}").unwrap();
                }
            }
            text += "[firewall]\nenabled = true\nallow = [\"tcp/22\", \"udp/1-65535\"]\nping = \"1000000/hour\"\nclamp_mss = \"on\"\n";
            let mut config = Config::parse(&text, Path::new("balance.toml")).unwrap();
            let own = "set seen {\ntype ipv4_addr\nflags dynamic,timeout\ntimeout 1h\n}\nchain own_input {\nadd @seen { ip saddr }\n}";
            config.firewall.own_rules = vec![OwnRules { path: "/own.nft".into(), text: own.to_owned() }];
            let table = draft("balance-instance", &config);
            nft::check(&table).await.unwrap();
            let mut installed = Installed::default();
            assert!(installed.ensure(&table).await.unwrap());
            netns.nft("add element inet balance-instance seen { 192.0.2.1 }");
            assert!(!installed.ensure(&table).await.unwrap(), "there already");
        }
    });
}

#[test]
fn nft_accepts_the_chains_for_local_sockets_whichever_isps_are_down() {
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        for (count, mask) in [(1, MASK), (3, MASK), (63, MASK), (3, 0xf000_0000), (3, u32::MAX)] {
            for down in [0, 1, count - 1, count] {
                let isps = isps(count);
                let standing = |isp: &NatIsp| {
                    let usable = isp.id.get() > down;
                    Standing {
                        isp: isp.id,
                        usable: [usable, true],
                        weights: [if usable { 1000 } else { 0 }, 1],
                    }
                };
                let standings: Vec<_> = isps.iter().map(standing).collect();
                let mut table = nft_table("balance", mask, &isps);
                table.body += &local_chains(mask, &isps, &standings);
                nft::apply(&table).await.unwrap();
                let listing = nft::list("balance").await.unwrap().unwrap();
                assert_eq!(listing.contains("goto move_ipv4"), down > 0 && down < count, "{listing}");
            }
        }
    });
}

#[test]
fn only_the_own_table_is_replaced_and_removed() {
    let Some(netns) = Netns::new() else { return };
    netns.nft("table inet foreign { set kept { type ipv4_addr; elements = { 192.0.2.1 } }; }");
    netns.nft("table ip nat { chain kept { type nat hook postrouting priority 100; }; }");
    let foreign = netns.command("nft list ruleset");
    netns.block_on(async || {
        nft::remove("balance").await.expect("nothing to remove is fine");
        nft::apply(&nft_table("balance", MASK, &isps(3))).await.unwrap();
        nft::apply(&nft_table("balance", MASK, &isps(2))).await.unwrap();
        let listing = nft::list("balance").await.unwrap().unwrap();
        assert!(listing.contains("to_2") && !listing.contains("to_3"), "{listing}");
        nft::remove("balance").await.unwrap();
        assert_eq!(nft::list("balance").await.unwrap(), None);
    });
    assert_eq!(netns.command("nft list ruleset"), foreign);
}

#[test]
fn a_refused_table_leaves_the_old_one_and_says_why() {
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        nft::apply(&nft_table("balance", MASK, &isps(1))).await.unwrap();
        let before = nft::list("balance").await.unwrap();
        let bad = NftTable { name: "balance".into(), body: "\tchain a {\n\t\tnonsense\n\t}\n".into() };
        let error = nft::apply(&bad).await.unwrap_err();
        assert!(matches!(&error, NftError::Refused { stderr, .. } if stderr.contains("nonsense")), "{error}");
        assert_eq!(nft::list("balance").await.unwrap(), before);
    });
}

#[test]
fn the_table_is_put_back_when_somebody_flushed_or_changed_it() {
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        let watch = Watch::new().unwrap();
        let table = nft_table("balance", MASK, &isps(2));
        let mut installed = Installed::default();
        assert!(installed.ensure(&table).await.unwrap());
        soon(watch.changed()).await.unwrap();
        assert!(!installed.ensure(&table).await.unwrap(), "there already");

        for change in ["flush ruleset", "flush chain inet balance to_1", "add chain inet balance alien"] {
            netns.nft(change);
            soon(watch.changed()).await.unwrap();
            assert!(installed.ensure(&table).await.unwrap(), "after {change}");
            soon(watch.changed()).await.unwrap();
            assert!(!installed.ensure(&table).await.unwrap(), "repaired after {change}");
        }
        assert!(installed.ensure(&nft_table("balance", MASK, &isps(1))).await.unwrap(), "another plan");
    });
}

#[test]
fn a_storm_of_changes_is_one_change_and_silence_is_none() {
    let Some(netns) = Netns::new() else { return };
    netns.block_on(async || {
        let watch = Watch::new().unwrap();
        // More than the socket's buffer holds, so that it overruns.
        let storm: Vec<_> = (0..5000).map(|i| format!("add table inet storm{i}\n")).collect();
        netns.nft(&storm.concat());
        soon(watch.changed()).await.unwrap();
        assert!(watch.changed().now_or_never().is_none(), "nothing has changed since");
    });
}
