//! Programs that would fight us, and other instances of our own.

use super::{Facts, Finding, note, problem};

/// Programs that balance themselves, or undo what others have set.
const RIVALS: [(&str, &str); 6] = [
    ("mwan3track", "mwan3 balances as well"),
    ("mwan3rtmon", "mwan3 balances as well"),
    ("load_balance.pl", "Net::ISP::Balance balances as well, and flushes routes and rules"),
    ("foolsm", "foolsm watches the ISPs as well, and may run the scripts of Net::ISP::Balance"),
    ("lsm", "lsm watches the ISPs as well, and may run the scripts of Net::ISP::Balance"),
    ("connmand", "ConnMan makes and deletes rules and default routes"),
];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let runs = |name: &str| facts.programs.contains(name);
    let mut findings: Vec<Finding> = RIVALS
        .iter()
        .filter(|(name, _)| runs(name))
        .map(|(name, what)| {
            problem(
                "daemon",
                format!("{name} runs: {what}"),
                format!("stop it: systemctl disable --now {name}"),
            )
        })
        .collect();
    // The kernel cuts names of programs after fifteen bytes.
    if runs("systemd-network") || runs("systemd-networkd") {
        let unspared: Vec<_> = [
            (facts.networkd.spares_routes, "ManageForeignRoutes=no"),
            (facts.networkd.spares_rules, "ManageForeignRoutingPolicyRules=no"),
        ]
        .iter()
        .filter(|(is_spared, _)| !is_spared)
        .map(|(_, line)| *line)
        .collect();
        if !unspared.is_empty() {
            let fix = format!(
                "printf '[Network]\\n{}\\n' > /etc/systemd/networkd.conf.d/balance.conf; systemctl restart systemd-networkd",
                unspared.join("\\n")
            );
            let what = "systemd-networkd deletes routes and rules that it has not made";
            findings.push(problem("daemon", what, format!("mkdir -p /etc/systemd/networkd.conf.d; {fix}")));
        }
    }
    if runs("NetworkManager") {
        findings.push(note(
            "daemon",
            "NetworkManager does no harm, as long as no connection has ipv4.route-table or ipv6.route-table: then it deletes routes of others",
        ));
    }
    let mask = facts.mask();
    findings.extend(facts.instances.iter().filter(|(_, other)| *other & mask != 0).map(|(name, other)| {
        let what = format!("instance {name} uses the same bits of the mark ({other:#x})");
        problem("mark", what, format!("mask = {:#x} in [mark] of one of them", free(mask | other)))
    }));
    findings
}

/// Six bits in a row that are not among these; our own if there are none.
pub(super) fn free(taken: u32) -> u32 {
    const BITS: u32 = 0x3f;
    // Bytes are easier to read, and low bits are what everybody takes.
    let places = [16, 8, 24, 20, 12, 4, 0, 26];
    places
        .into_iter()
        .map(|place| BITS << place)
        .find(|mask| mask & taken == 0)
        .unwrap_or(super::DEFAULT_MASK)
}
