//! What others do to marks and source addresses, from nft's ruleset (`libnftables-json(5)`).

use serde_json::Value;

use super::others::free;
use super::{Facts, Finding, note, warning};

/// The priority of our source NAT.
const NAT_PRIORITY: i64 = 99;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(ruleset) = &facts.ruleset else { return Vec::new() };
    let objects = ruleset.get("nftables").and_then(Value::as_array);
    let objects: Vec<&Value> = objects.into_iter().flatten().collect();
    let of_kind = |kind: &'static str| {
        let objects = objects.iter().filter_map(move |object| object.get(kind));
        // Other instances' are ours, too.
        objects.filter(|object| {
            let table = text(object, "table");
            table != facts.nft_table && !(text(object, "family") == "inet" && table.starts_with("balance"))
        })
    };
    let mask = facts.mask();
    let rules: Vec<&Value> = of_kind("rule").collect();
    let changed = rules.iter().map(|rule| (rule, changed_bits(rule)));
    let clashing: Vec<_> = changed.filter(|(_, bits)| bits & mask != 0).collect();
    let all = clashing.iter().filter(|(_, bits)| *bits != u32::MAX).fold(mask, |all, (_, bits)| all | bits);
    let mut findings: Vec<Finding> = clashing
        .iter()
        .map(|(rule, bits)| {
            let bits =
                if *bits == u32::MAX { "all bits".to_owned() } else { format!("bits {:#x}", bits & mask) };
            let what = format!("{} changes {bits} of the mark, which are ours", place(rule));
            let fix = format!(
                "have it keep them (`meta mark set meta mark & {:#010x} | ...`), or mask = {:#x} in [mark]",
                mask,
                free(all)
            );
            warning("mark", what, fix)
        })
        .collect();
    findings.extend(of_kind("chain").filter(|chain| is_early_nat(chain)).filter_map(|chain| {
        let of_chain = |rule: &&&Value| {
            ["family", "table"].iter().all(|key| rule.get(key) == chain.get(key))
                && text(rule, "chain") == text(chain, "name")
        };
        let rule = rules.iter().filter(of_chain).find(|rule| has(rule, "snat") || has(rule, "masquerade"))?;
        let what = format!("{} translates sources before us, maybe to another ISP's address", place(rule));
        Some(warning("nft", what, "a priority above 99 for its chain, or leave it to us"))
    }));
    if of_kind("flowtable").next().is_some() {
        findings.push(note(
            "nft",
            "flows in a flowtable of others keep their ISP when it fails, as conntrack cannot delete them",
        ));
    }
    if rules.iter().any(|rule| rule.to_string().contains("\"xt\"")) {
        findings.push(note(
            "nft",
            "what rules of iptables do to marks is not told by nft: see iptables-save | grep MARK",
        ));
    }
    findings
}

/// The bits of the packet's or the flow's mark that a rule may change.
fn changed_bits(rule: &Value) -> u32 {
    let statements = rule.get("expr").and_then(Value::as_array).into_iter().flatten();
    let mangles = statements.filter_map(|statement| statement.get("mangle"));
    mangles
        .filter(|mangle| mangle.get("key").is_some_and(is_mark))
        .map(|mangle| match (mangle.get("key"), mangle.get("value")) {
            (Some(key), Some(value)) => changed_by(key, value),
            _ => u32::MAX,
        })
        .fold(0, |all, bits| all | bits)
}

/// The bits in which this value may differ from what the mark was before.
fn changed_by(mark: &Value, value: &Value) -> u32 {
    if value == mark {
        return 0;
    }
    let Some((operator, operands)) = value.as_object().and_then(|object| object.iter().next()) else {
        return u32::MAX;
    };
    let Some([left, right]) = operands.as_array().map(Vec::as_slice) else { return u32::MAX };
    let Some(number) = right.as_u64().and_then(|number| u32::try_from(number).ok()) else { return u32::MAX };
    match operator.as_str() {
        "&" => changed_by(mark, left) | !number,
        "|" | "^" => changed_by(mark, left) | number,
        _ => u32::MAX,
    }
}

fn is_mark(key: &Value) -> bool {
    ["meta", "ct"].iter().any(|kind| key.get(kind).is_some_and(|key| text(key, "key") == "mark"))
}

fn is_early_nat(chain: &Value) -> bool {
    text(chain, "type") == "nat"
        && text(chain, "hook") == "postrouting"
        && chain.get("prio").and_then(Value::as_i64).is_some_and(|priority| priority < NAT_PRIORITY)
}

fn has(rule: &Value, statement: &str) -> bool {
    rule.get("expr").and_then(Value::as_array).into_iter().flatten().any(|one| one.get(statement).is_some())
}

fn place(rule: &Value) -> String {
    let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
    let (family, table, chain) = (text(rule, "family"), text(rule, "table"), text(rule, "chain"));
    format!("a rule of {family} {table} {chain} (handle {handle})")
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
