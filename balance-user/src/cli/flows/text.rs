//! Flows as lines.

use std::time::Duration;

use super::super::figures::{age, amount};
use super::Event;
use crate::flows::FlowTold;

/// How wide the columns are: protocol, source, destination, ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns([usize; 4]);

const HEADER: [&str; 4] = ["PROTO", "SOURCE", "DESTINATION", "ISP"];

impl Columns {
    /// Those that these flows fit in.
    pub(super) fn fit(flows: &[FlowTold]) -> Self {
        let widths = flows.iter().map(|flow| cells(flow).map(|cell| cell.chars().count()));
        let header = HEADER.map(str::len);
        Self(widths.fold(header, |widths, flow| {
            let mut both = widths.iter().zip(flow).map(|(width, other)| (*width).max(other));
            std::array::from_fn(|_| both.next().unwrap_or_default())
        }))
    }

    /// Those that most flows of IPv4 fit in.
    pub(super) const fn usual() -> Self {
        Self([4, 21, 21, 8])
    }

    pub(super) fn header(&self) -> String {
        let cells = self.padded(&HEADER.map(str::to_owned));
        format!("{cells} PATH BYTES AGE    WHY")
    }

    pub(super) fn line(&self, flow: &FlowTold) -> String {
        let path = if flow.fast { "fast" } else { "slow" };
        // Of what goes fast, conntrack sees a packet a second.
        let at_least = if flow.fast { "+" } else { "" };
        let bytes = flow.bytes.map_or("-".to_owned(), |bytes| amount(bytes) + at_least);
        let age = flow.age.map_or("-".to_owned(), |seconds| age(Duration::from_secs(seconds)));
        let cells = self.padded(&cells(flow));
        format!("{cells} {path} {bytes:<5} {age:<6} {}", flow.why)
    }

    pub(super) fn event(&self, event: &Event) -> String {
        let time = event.time.get(11..19).unwrap_or_default();
        let from = event.from.as_ref().map(|from| format!("from {from}; ")).unwrap_or_default();
        let cells = self.padded(&cells(&event.flow));
        // Why it was there says nothing when it is over.
        let why = if matches!(event.what, "ended" | "lost") {
            String::new()
        } else {
            format!(" {from}{}", event.flow.why)
        };
        format!("{time} {:<5} {}{why}", event.what, cells.trim_end())
    }

    fn padded(&self, cells: &[String; 4]) -> String {
        let padded: Vec<_> = cells.iter().zip(self.0).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join(" ")
    }
}

/// What to do to have what is missing; nothing if nothing is. `missing` are bytes and ages; none if there are no flows at all.
pub(super) fn hint(missing: Option<(bool, bool)>) -> String {
    let Some((bytes, ages)) = missing else { return "there are no such flows\n".to_owned() };
    let settings = [(bytes, "BYTES", "nf_conntrack_acct"), (ages, "AGE", "nf_conntrack_timestamp")];
    let one = |(_, column, key): &(bool, &str, &str)| {
        format!("{column} of new flows is there after: sysctl -w net.netfilter.{key}=1\n")
    };
    settings.iter().filter(|(is_missing, _, _)| *is_missing).map(one).collect()
}

fn cells(flow: &FlowTold) -> [String; 4] {
    let [source, destination] = flow.ends();
    [flow.protocol.clone(), source, destination, flow.isp.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{Chosen, Why};

    fn flow(protocol: &str, source: &str, isp: &str) -> FlowTold {
        let ports = protocol != "icmp";
        let bucket = Some(1234);
        FlowTold {
            protocol: protocol.to_owned(),
            source: source.parse().unwrap(),
            source_port: ports.then_some(40_000),
            destination: if source.contains(':') { "2001:db8::9" } else { "198.51.100.9" }.parse().unwrap(),
            destination_port: ports.then_some(443),
            isp: isp.to_owned(),
            seen_as: None,
            fast: ports,
            bytes: ports.then_some(1_234_567),
            packets: None,
            age: ports.then_some(300),
            why: Why::Bucket(Chosen {
                rule: None,
                policy: Some("default".to_owned()),
                bucket,
                bucket_isp: None,
            }),
        }
    }

    #[test]
    fn a_flow_is_a_line_of_eighty_columns_that_says_where_it_is_and_why() {
        let flows = [flow("tcp", "192.168.1.10", "CABLE"), flow("icmp", "192.168.1.100", "DSL")];
        let columns = Columns::fit(&flows);
        let lines: Vec<_> =
            std::iter::once(columns.header()).chain(flows.iter().map(|flow| columns.line(flow))).collect();
        let expected = "\
PROTO SOURCE             DESTINATION      ISP   PATH BYTES AGE    WHY
tcp   192.168.1.10:40000 198.51.100.9:443 CABLE fast 1.2M+ 5m     bucket 1234
icmp  192.168.1.100      198.51.100.9     DSL   slow -     -      bucket 1234";
        assert_eq!(lines.join("\n"), expected);
        assert!(lines.iter().all(|line| line.len() <= 80));
        let other = flow("udp", "fd00:1::10", "LTE");
        assert!(columns.line(&other).starts_with("udp   [fd00:1::10]:40000 [2001:db8::9]:443 LTE   fast"));
    }

    #[test]
    fn events_say_when_what_has_happened() {
        let event = |what, from: Option<&str>| Event {
            what,
            from: from.map(str::to_owned),
            time: "2026-11-23T16:42:16Z".to_owned(),
            flow: flow("tcp", "192.168.1.10", "CABLE"),
        };
        let line = |event| Columns::usual().event(&event);
        assert_eq!(
            line(event("moved", Some("DSL"))),
            "16:42:16 moved tcp  192.168.1.10:40000    198.51.100.9:443      CABLE from DSL; bucket 1234"
        );
        assert_eq!(
            line(event("ended", None)),
            "16:42:16 ended tcp  192.168.1.10:40000    198.51.100.9:443      CABLE"
        );
    }

    #[test]
    fn what_is_missing_is_told_with_the_remedy() {
        assert_eq!(hint(Some((false, false))), "");
        assert_eq!(
            hint(Some((true, false))),
            "BYTES of new flows is there after: sysctl -w net.netfilter.nf_conntrack_acct=1\n"
        );
        assert!(hint(Some((true, true))).contains("nf_conntrack_timestamp=1"));
        assert_eq!(hint(None), "there are no such flows\n");
    }
}
