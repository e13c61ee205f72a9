//! Flows go where `explain` has said they would.

use std::collections::BTreeSet;

use balance_lab::addresses::lan_host;
use balance_lab::{Lab, ready};

use crate::support::{KINDS, ask, explain_flow, internet, open, seen_as};

/// Ports and addresses in no order.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from((self.0 >> 33) % u64::from(limit)).unwrap()
    }
}

/// Explains, then opens flows; returns the ISPs that they went by.
fn flows_go_where_explained(lab: &Lab, each: u16) -> BTreeSet<String> {
    let mut random = Random(7);
    let mut isps = BTreeSet::new();
    for (transport, family) in KINDS.into_iter().cycle().take(4 * usize::from(each)) {
        let from = (lan_host(0, family), 20_000 + random.below(30_000)).into();
        let to = internet(1 + u8::try_from(random.below(250)).unwrap(), family);
        let told = explain_flow(lab, transport, from, to);
        let seen = ask(&open(lab.lan(), transport, from, to));
        assert_eq!(seen_as(&told), seen, "{told:#}");
        if let Some(isp) = lab.isp_of(seen) {
            assert_eq!(told["isp"], isp.name(), "{told:#}");
        }
        isps.insert(told["isp"].as_str().unwrap().to_owned());
    }
    isps
}

#[test]
fn fifty_flows_go_by_the_isps_and_have_the_addresses_that_were_foretold() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let rules = r#"
[[policy]]
name = "STICKY"
isps = [{ name = "CABLE", weight = 1 }, "DSL"]
sticky = "source-destination"

[[rule]]
protocol = "udp"
source_port = "20000-35000"
to = "STICKY"
"#;
    lab.write_config(&format!("{}\n{rules}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    assert_eq!(flows_go_where_explained(&lab, 13).len(), 2, "both ISPs were in it");
}

#[test]
fn translated_prefixes_are_foretold_as_the_internet_sees_them() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let mut config = lab.config();
    for (isp, prefix) in [("CABLE", "2001:db8:a::/48"), ("DSL", "2001:db8:b::/48")] {
        lab.delegate(isp, prefix).unwrap();
        let name = format!("name = \"{isp}\"\n");
        config = config.replace(&name, &format!("{name}ipv6 = \"npt\"\nprefix = \"{prefix}\"\n"));
    }
    lab.write_config(&config).unwrap();
    let _daemon = lab.start_up().unwrap();
    flows_go_where_explained(&lab, 3);
}
