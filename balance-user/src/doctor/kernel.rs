//! What the kernel can do.

use super::{Finding, Kernel, note, problem, warning};

/// What nothing works without.
const NEEDED: [(&str, &str); 9] = [
    ("BPF_SYSCALL", "eBPF programs"),
    ("IP_MULTIPLE_TABLES", "routing tables for the ISPs"),
    ("NF_CONNTRACK", "conntrack"),
    ("NF_CONNTRACK_MARK", "marks of flows"),
    ("NF_CT_NETLINK", "looking at flows"),
    ("NF_TABLES", "nftables"),
    ("NFT_CT", "marks of flows in nftables"),
    ("NFT_MASQ", "masquerading"),
    ("NFT_NAT", "port forwards"),
];

/// What something is missing without.
const WANTED: [(&str, &str); 6] = [
    ("BPF_JIT", "programs run ten times slower"),
    ("IP_ROUTE_MULTIPATH", "traffic without a mark all goes by one ISP"),
    ("IPV6_MULTIPLE_TABLES", "IPv6 cannot be balanced"),
    ("CGROUP_BPF", "sockets of this machine are not given ISPs"),
    ("NFT_REJECT_INET", "connections of a dead ISP cannot be reset: set reset = false"),
    ("NFT_FIB_INET", "port forwards cannot know the own addresses"),
];

/// The first release that works, the first that attaches programs without a qdisc.
const OLDEST: (u32, u32) = (5, 11);
const TCX: (u32, u32) = (6, 6);

pub(super) fn findings(kernel: &Kernel) -> Vec<Finding> {
    let mut findings = Vec::new();
    match version(&kernel.release) {
        Some(version) if version < OLDEST => findings.push(problem(
            "kernel",
            format!("Linux {} is too old", kernel.release),
            "boot Linux 5.11 or later, better 6.6",
        )),
        Some(version) if version < TCX => {
            let what = format!("Linux {} has no tcx: programs are attached by clsact qdiscs", kernel.release);
            findings.push(note("kernel", what));
        }
        _ => {}
    }
    match &kernel.options {
        Some(options) => {
            let has = |option: &str| options.contains_key(option);
            let lacking = NEEDED.iter().filter(|(option, _)| !has(option));
            findings.extend(lacking.map(|(option, what)| {
                let fix = format!("use a kernel with CONFIG_{option}");
                problem("kernel", format!("the kernel is built without {what} (CONFIG_{option})"), fix)
            }));
            let lacking = WANTED.iter().filter(|(option, _)| !has(option));
            findings.extend(lacking.map(|(option, consequence)| {
                let fix = format!("use a kernel with CONFIG_{option}");
                warning("kernel", format!("the kernel is built without CONFIG_{option}: {consequence}"), fix)
            }));
            let is_module = |option: &str| options.get(option) == Some(&'m');
            let modules = NEEDED.iter().any(|(option, _)| is_module(option));
            if modules && !kernel.has_modules {
                let what = format!("the modules of the running kernel, {}, are not there", kernel.release);
                findings.push(problem("kernel", what, "reboot into the kernel that is installed"));
            }
        }
        None => findings.push(note(
            "kernel",
            "how the kernel was built is not told (/boot/config-*, /proc/config.gz), so its options are not checked",
        )),
    }
    if !kernel.has_btf {
        let what = "the kernel does not tell about its types (/sys/kernel/btf/vmlinux)";
        let fix = "use a kernel with CONFIG_DEBUG_INFO_BTF, should the programs not load";
        findings.push(warning("kernel", what, fix));
    }
    if !kernel.has_cgroup2 {
        let what = "cgroup2 is not mounted: sockets of this machine are not given ISPs";
        findings.push(warning("kernel", what, "mount -t cgroup2 none /sys/fs/cgroup"));
    }
    if !kernel.has_nft {
        findings.push(problem("nft", "there is no command nft", "apt install nftables"));
    }
    findings
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
