//! The lab with its servers, and a daemon that asks them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use balance_lab::{Counter, Daemon, Lab, Server, binary, serve_tcp};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::servers::{Authority, Pages, Running, Says, Zone, at, serve_names, serve_pages};

pub(crate) const HTTP: u16 = 80;
pub(crate) const HTTPS: u16 = 443;
pub(crate) const DNS: u16 = 53;
/// Where connections are taken and nothing is said.
pub(crate) const TCP: u16 = 7010;
/// What the right answer for `www.test` is.
pub(crate) const WWW: [&str; 2] = ["203.0.113.80", "2001:db8:ffff::80"];

/// What CABLE's customers get to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mischief {
    /// Instead of any page.
    pub(crate) page: Option<String>,
    /// Instead of any name.
    pub(crate) name: Option<Says>,
}

pub(crate) struct Scene {
    // First, before its machines.
    _servers: (Vec<Running>, Vec<Server>),
    pub(crate) lab: Lab,
    pub(crate) mischief: Arc<Mutex<Mischief>>,
    /// Who has asked for which path or name, and how often.
    pub(crate) asked: Arc<Mutex<BTreeMap<(IpAddr, String), usize>>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (host, authority) = (lab.internet(), Authority::new());
        lab.router().run(|| std::fs::write("/run/ca.pem", authority.pem())).unwrap();
        let (mischief, asked) = (Arc::<Mutex<Mischief>>::default(), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let cable: Vec<IpAddr> =
            balance_lab::Family::ALL.map(|family| lab.isp("CABLE").address(family)).to_vec();

        let (seen, trouble, customers) = (Arc::clone(&asked), Arc::clone(&mischief), cable.clone());
        let pages: Arc<Pages> = Arc::new(move |peer: IpAddr, path: &str| {
            *seen.lock().unwrap().entry((peer, path.to_owned())).or_default() += 1;
            let wrong = trouble.lock().unwrap().page.clone().filter(|_| customers.contains(&peer));
            wrong.unwrap_or_else(|| match path {
                "/generate_204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                _ => page(200, "all is ok"),
            })
        });
        let (seen, trouble) = (Arc::clone(&asked), Arc::clone(&mischief));
        let zone: Arc<Zone> = Arc::new(move |peer: IpAddr, name: &str| {
            *seen.lock().unwrap().entry((peer, name.to_owned())).or_default() += 1;
            let wrong = trouble.lock().unwrap().name.clone().filter(|_| cable.contains(&peer));
            wrong.unwrap_or_else(|| match name {
                "www.test" => Says::Addresses(WWW.map(|address| address.parse().unwrap()).to_vec()),
                "v4.test" => Says::Addresses(vec![WWW[0].parse().unwrap()]),
                _ => Says::Code(simple_dns::RCODE::NameError),
            })
        });
        let certified = authority.certify(&["www.test", WWW[0], WWW[1]]);
        let for_others = authority.certify(&["portal.test"]);
        let running = vec![
            serve_pages(host, &at(HTTP), None, &pages),
            serve_pages(host, &at(HTTPS), Some(&certified), &pages),
            serve_pages(host, &at(HTTPS + 1), Some(&for_others), &pages),
            serve_pages(host, &at(HTTPS + 2), Some(&Authority::new().certify(&[WWW[0], WWW[1]])), &pages),
            serve_names(host, &at(DNS), &zone),
        ];
        let silent = at(TCP).map(|address| serve_tcp(host, address).unwrap());
        Self { _servers: (running, silent.into()), lab, mischief, asked }
    }

    /// The configuration with these targets for both ISPs, which are quick to judge.
    pub(crate) fn configure(&self, targets: &str, quorum: usize) {
        let mut text = format!(
            "[monitor]\ninterval = \"200ms\"\nsuspect_interval = \"100ms\"\nup_after = \"200ms\"\nup_after_max = \"200ms\"\nquorum = {quorum}\n\
             resolvers = [\"{}\", \"{}\"]\n[[lan]]\nname = \"LAN\"\ndevice = \"lan0\"\n",
            WWW[0], WWW[1]
        );
        for (name, device) in [("CABLE", "cable0"), ("DSL", "dsl0")] {
            text.extend([
                "[[isp]]\nname = \"",
                name,
                "\"\ndevice = \"",
                device,
                "\"\ntargets = [",
                targets,
                "]\n",
            ]);
        }
        self.lab.write_config(&text).unwrap();
    }

    pub(crate) fn start(&self) -> Daemon {
        let mut command = self.lab.router().command(binary().unwrap());
        command.args(["run", "--config", "/run/balance.toml"]).env("SSL_CERT_FILE", "/run/ca.pem");
        command.env("SSL_CERT_DIR", "/nonexistent");
        Daemon::start(&self.lab, command).unwrap()
    }

    /// How often an ISP's customer has asked for a path or a name.
    pub(crate) fn asked(&self, customer: IpAddr, what: &str) -> usize {
        self.asked.lock().unwrap().get(&(customer, what.to_owned())).copied().unwrap_or_default()
    }

    /// Goes on with these targets.
    pub(crate) fn reload(&self, daemon: &Daemon, targets: &str) {
        self.configure(targets, 1);
        daemon.signal(Signal::SIGHUP).unwrap();
    }

    pub(crate) fn trouble(&self, mischief: Mischief) {
        *self.mischief.lock().unwrap() = mischief;
    }

    /// An nft rule of the internet host for what comes in there.
    pub(crate) fn filter(&self, rule: &str) {
        let table = format!(
            "table inet test
            delete table inet test
            table inet test {{
                chain in {{
                    type filter hook input priority 0
                    {rule}
                }}
            }}"
        );
        self.lab.internet().feed("nft", &["-f", "-"], &table).unwrap();
    }

    /// From now on the packets that leave the router by an ISP are counted.
    pub(crate) fn watch_marks(&self) {
        // Whatever of ours leaves: by which device, with which mark. Neighbours are resolved without one.
        let rules = "table inet marks {
            counter right {}
            counter wrong {}
            chain out {
                type filter hook postrouting priority 200;
                fib daddr type local return
                meta l4proto icmpv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } return
                oifname cable0 meta mark & 0x3f00 == 0x100 counter name right return
                oifname dsl0 meta mark & 0x3f00 == 0x200 counter name right return
                oifname { cable0, dsl0 } counter name wrong
            }
        }";
        self.lab.router().feed("nft", &["-f", "-"], rules).unwrap();
    }

    /// How many have left with the mark of their device, and how many with another one or none.
    pub(crate) fn marks(&self) -> (u64, u64) {
        let counter = |name| Counter::open(self.lab.router(), "marks", name).unwrap().packets().unwrap();
        (counter("right"), counter("wrong"))
    }

    /// Waits until CABLE is down for this reason, while DSL stays up.
    pub(crate) fn only_cable_fails(&self, reason: &str) {
        self.lab
            .wait_isp("CABLE", |isp| isp["state"] == "down" && text(isp, "reason").contains(reason))
            .unwrap_or_else(|error| panic!("{reason}: {error:#}"));
        // On a busy machine a single probe may well come too late.
        let dsl = self.lab.isp_status("DSL").unwrap();
        assert!(dsl["state"] == "up" || dsl["state"] == "suspect", "{reason}: {dsl:#}");
    }
}

pub(crate) fn text<'a>(isp: &'a Value, field: &str) -> &'a str {
    isp[field].as_str().unwrap_or_default()
}

pub(crate) fn page(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

/// Where a server is, as URLs have it.
pub(crate) fn servers(port: u16) -> [SocketAddr; 2] {
    at(port)
}
