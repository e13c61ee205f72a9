//! Everything that the daemon may change on a router, to compare before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use aya::programs::{SchedClassifier, TcAttachType};

use crate::Host;
use crate::mounts::{list_tree, read_tree};

/// Sysctls that change by themselves, or differ at each reading.
const VOLATILE: &[&str] = &["nf_conntrack_count", "stable_secret", "tcp_fastopen_key"];
/// Sections whose order is up to the kernel.
const UNORDERED: &[&str] = &["routes v4", "routes v6"];

/// Rules, routes, nft, sysctls, tc, tcx, links, addresses and files of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    sections: BTreeMap<String, Vec<String>>,
}

impl Dump {
    /// Takes it. Counters and what else changes by itself are left out.
    ///
    /// # Errors
    /// When a tool fails or a file cannot be read.
    pub fn take(host: &Host) -> anyhow::Result<Self> {
        // Numbers, since names depend on files that may have changed.
        let commands: &[(&str, &str, &[&str])] = &[
            ("rules v4", "ip", &["-N", "rule"]),
            ("rules v6", "ip", &["-N", "-6", "rule"]),
            ("routes v4", "ip", &["-N", "route", "show", "table", "all"]),
            ("routes v6", "ip", &["-N", "-6", "route", "show", "table", "all"]),
            ("links", "ip", &["-o", "-d", "link"]),
            ("addresses", "ip", &["-o", "addr"]),
            ("nft", "nft", &["-s", "list", "ruleset"]),
            ("qdiscs", "tc", &["qdisc", "show"]),
        ];
        let mut sections = BTreeMap::new();
        for (section, program, arguments) in commands {
            let mut lines = lines(&host.feed(program, arguments, "")?);
            if *section == "links" {
                lines = lines.iter().map(|line| without_timers(line)).collect();
            }
            if UNORDERED.contains(section) {
                lines.sort();
            }
            sections.insert((*section).to_owned(), lines);
        }
        sections.extend(host.run(own_sections)?);
        for device in host.run(devices)? {
            for side in ["ingress", "egress"] {
                // A failure is a device without that qdisc: it has no filters.
                let filters =
                    host.feed("tc", &["filter", "show", "dev", &device, side], "").unwrap_or_default();
                sections.insert(format!("tc filters {device} {side}"), lines(&filters));
            }
        }
        Ok(Self { sections })
    }

    /// What differs, a line each: `- section: line` is only here, `+ section: line` only in `other`.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<String> {
        let names = self.sections.keys().chain(other.sections.keys());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.dedup();
        names.into_iter().flat_map(|name| diff_section(name, self.lines(name), other.lines(name))).collect()
    }

    fn lines(&self, section: &str) -> &[String] {
        self.sections.get(section).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The sections that are read by the calling thread, in the host's namespaces.
fn own_sections() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut sections = BTreeMap::new();
    sections.insert("sysctls".to_owned(), sysctls()?);
    for directory in ["/sys/fs/bpf", "/run/balance"] {
        let files = list_tree(Path::new(directory)).with_context(|| format!("cannot list {directory}"))?;
        sections.insert(directory.to_owned(), files.iter().map(|path| path.display().to_string()).collect());
    }
    let names = Path::new("/etc/iproute2");
    for (path, content) in read_tree(names).context("cannot read /etc/iproute2")? {
        let mut content = lines(&String::from_utf8_lossy(&content));
        // So that an empty file is something too.
        content.insert(0, "(file)".to_owned());
        sections.insert(path.display().to_string(), content);
    }
    for device in devices()? {
        for (side, attach) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
            // A kernel without tcx has none.
            let Ok((_, programs)) = SchedClassifier::query_tcx(&device, attach) else { continue };
            let programs = programs.iter().map(|program| {
                format!("program {} {}", program.id(), program.name_as_str().unwrap_or_default())
            });
            sections.insert(format!("tcx {device} {side}"), programs.collect());
        }
    }
    Ok(sections)
}

/// The devices of the calling thread's network namespace.
fn devices() -> anyhow::Result<Vec<String>> {
    // Not `/sys/class/net`, which shows those of whoever mounted it.
    let table = fs::read_to_string("/proc/thread-self/net/dev").context("cannot list the devices")?;
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    Ok(table.lines().filter_map(name).collect())
}

/// All readable sysctls of the calling thread's network namespace.
fn sysctls() -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in list_tree(Path::new("/proc/sys/net")).context("cannot list the sysctls")? {
        let volatile = path.file_name().is_some_and(|name| VOLATILE.iter().any(|volatile| name == *volatile));
        // Some can only be written, and those of a device that just went away are gone.
        if !volatile && let Ok(value) = fs::read_to_string(&path) {
            lines.push(format!("{} = {}", path.display(), value.trim()));
        }
    }
    Ok(lines)
}

fn diff_section(name: &str, before: &[String], after: &[String]) -> Vec<String> {
    let gone = minus(before, after).into_iter().map(|line| format!("- {name}: {line}"));
    let new = minus(after, before).into_iter().map(|line| format!("+ {name}: {line}"));
    let mut lines: Vec<_> = gone.chain(new).collect();
    if lines.is_empty() && before != after {
        lines.push(format!("* {name}: the same lines in another order"));
    }
    lines
}

/// The lines of `left` that are not in `right`, counting how often.
fn minus<'a>(left: &'a [String], right: &[String]) -> Vec<&'a str> {
    let mut rest: Vec<_> = right.iter().collect();
    let missing = left.iter().filter(|line| match rest.iter().position(|other| other == line) {
        Some(index) => {
            rest.swap_remove(index);
            false
        }
        None => true,
    });
    missing.map(String::as_str).collect()
}

/// The line without what tells how long a bridge's timers have to run.
fn without_timers(line: &str) -> String {
    let before = std::iter::once("").chain(line.split_whitespace());
    let lasting = line.split_whitespace().zip(before).filter(|(_, before)| !before.ends_with("_timer"));
    lasting.map(|(word, _)| word).collect::<Vec<_>>().join(" ")
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &[&str]) -> Dump {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Dump { sections: BTreeMap::from([("nft".to_owned(), lines)]) }
    }

    #[test]
    fn a_diff_says_what_came_and_what_went() {
        assert_eq!(dump(&["a", "b", "b"]).diff(&dump(&["a", "b", "c"])), ["- nft: b", "+ nft: c"]);
        assert_eq!(dump(&["a"]).diff(&Dump { sections: BTreeMap::new() }), ["- nft: a"]);
        assert_eq!(dump(&["a"]).diff(&dump(&["a"])), Vec::<String>::new());
    }

    #[test]
    fn bridges_have_timers_that_run_by_themselves() {
        let line = "7: br0: hello_time 200 gc_timer   23.45 vlan 0";
        assert_eq!(without_timers(line), "7: br0: hello_time 200 gc_timer vlan 0");
    }

    #[test]
    fn a_diff_notices_order() {
        assert_eq!(dump(&["a", "b"]).diff(&dump(&["b", "a"])), ["* nft: the same lines in another order"]);
    }
}
