//! Policies and rules.

use super::Case;

pub(super) const CASES: &[Case] = &[
    ("policy is a table", isp!("[policy]\nname = \"P\"\n"), 4, "write [[policy]], in two brackets"),
    ("policy without a name", isp!("[[policy]]\nsticky = \"source\"\n"), 4, "name is missing"),
    ("policy with the name of an ISP", isp!("[[policy]]\nname = \"a\"\n"), 5, "the name a is taken"),
    (
        "policy with a name that means something",
        isp!("[[policy]]\nname = \"bypass\"\n"),
        5,
        "bypass means something else",
    ),
    (
        "policy of a stranger",
        isp!("[[policy]]\nname = \"P\"\nisps = [\"B\"]\n"),
        6,
        "there is no ISP B: there is A",
    ),
    ("policy of nobody", isp!("[[policy]]\nname = \"P\"\nisps = []\n"), 6, "isps is empty"),
    (
        "policy with an ISP twice",
        isp!("[[policy]]\nname = \"P\"\nisps = [\"A\", { name = \"a\" }]\n"),
        6,
        "twice",
    ),
    (
        "weight 0 in a policy",
        isp!("[[policy]]\nname = \"P\"\nisps = [{ name = \"A\", weight = 0 }]\n"),
        6,
        "weight must be between 1 and 1000",
    ),
    (
        "unknown stickiness",
        isp!("[[policy]]\nname = \"P\"\nsticky = \"host\"\n"),
        6,
        "sticky must be one of \"flow\"",
    ),
    (
        "unknown last resort",
        isp!("[[policy]]\nname = \"P\"\nlast_resort = \"reject\"\n"),
        6,
        "last_resort must be one of \"main\", \"unreachable\", \"drop\"",
    ),
    ("rule to nowhere", isp!("[[rule]]\nport = 1\n"), 4, "to is missing"),
    (
        "rule to a stranger",
        isp!("[[rule]]\nto = \"P\"\n"),
        5,
        "there is no policy and no ISP P: there are default, A",
    ),
    ("unknown key of a rule", isp!("[[rule]]\ndport = 1\n"), 5, "[[rule]] can have source, destination"),
    (
        "source that is no address",
        isp!("[[rule]]\nsource = \"host\"\n"),
        5,
        "source must be an address or a prefix",
    ),
    (
        "destination with host bits",
        isp!("[[rule]]\ndestination = \"10.0.0.1/8\"\n"),
        5,
        "destination has bits set behind the prefix: write \"10.0.0.0/8\"",
    ),
    (
        "rule between families",
        isp!("[[rule]]\nsource = \"10.0.0.0/8\"\ndestination = \"fd00::/8\"\nto = \"A\"\n"),
        4,
        "are of different families",
    ),
    ("empty list in a rule", isp!("[[rule]]\nsource = []\n"), 5, "source is an empty list"),
    ("port 0 in a rule", isp!("[[rule]]\nport = 0\n"), 5, "port must be between 1 and 65535"),
    ("range of ports backwards in a rule", isp!("[[rule]]\nport = [\"9-5\"]\n"), 5, "write \"5-9\""),
    (
        "ports of ICMP",
        isp!("[[rule]]\nprotocol = \"icmp\"\nport = 5\nto = \"A\"\n"),
        6,
        "only tcp, udp and sctp have ports",
    ),
    ("unknown protocol", isp!("[[rule]]\nprotocol = \"quic\"\n"), 5, "protocol must be tcp, udp"),
    ("LAN of a rule that is none", isp!("[[rule]]\nlan = \"A\"\n"), 5, "there is no LAN A: there is none"),
    ("unknown DSCP", isp!("[[rule]]\ndscp = \"af99\"\n"), 5, "dscp must be a number from 0 to 63"),
    ("DSCP too large", isp!("[[rule]]\ndscp = 64\n"), 5, "dscp must be between 0 and 63"),
];
