//! What is asked, and whom, to see whether an ISP works.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use balance_common::Family;
use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};

use super::check;
use super::error::Problem;
use super::reader::{Item, Table};

/// One thing to ask through an ISP. Its [`Display`](fmt::Display) is what the config says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    text: String,
    ask: Ask,
    weight: usize,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// Whether this host answers pings.
    Ping(IpAddr),
    /// Whether TCP connections are taken there.
    Tcp(Endpoint),
    /// A page.
    Page(Page),
    /// A name server, for the address of a name.
    Name(NameQuery),
    /// The path's gateway, for its hardware address.
    Gateway,
}

/// Where TCP connections go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Of this host.
    pub host: HostName,
    /// To this port.
    pub port: u16,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// By its address.
    Address(IpAddr),
    /// By its name, the addresses of which are looked up through the ISP.
    Name(String),
}

/// A page, and what must come back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page {
    /// By HTTPS, with a valid certificate.
    pub tls: bool,
    /// From here.
    pub from: Endpoint,
    /// The host and port, as they stand in the URL.
    pub authority: String,
    /// The path with its query; begins with `/`.
    pub path: String,
    /// The status that it must have; none: any from 200 to 299.
    pub status: Option<u16>,
    /// What it must contain.
    pub body: Option<String>,
}

/// A question for the address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameQuery {
    /// To this name server.
    pub server: IpAddr,
    /// At this port.
    pub port: u16,
    /// The name.
    pub name: String,
    /// An address that must be among those that come back; none: there must be any.
    pub answer: Option<IpAddr>,
}

/// What a target of the short form can be.
const FORMS: &str = "an address to ping, \"tcp://HOST:PORT\", a URL, \"dns://SERVER/NAME\", or \"gateway\"";
/// The keys of the long form.
const KEYS: &[&str] = &["ping", "tcp", "url", "dns", "gateway", "status", "body", "name", "answer", "weight"];
/// Those of them of which there must be one.
const KINDS: [&str; 5] = ["ping", "tcp", "url", "dns", "gateway"];

const DNS_PORT: u16 = 53;

impl Target {
    /// What to ask whom.
    #[must_use]
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How much its answer counts for the quorum: at least 1.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// Whether it is asked to see if an ISP works in this family. Whether a name has addresses of it turns out later.
    #[must_use]
    pub fn is_for(&self, family: Family) -> bool {
        let address = match &self.ask {
            Ask::Ping(address) | Ask::Name(NameQuery { server: address, .. }) => address,
            Ask::Tcp(to) | Ask::Page(Page { from: to, .. }) => match &to.host {
                HostName::Address(address) => address,
                HostName::Name(_) => return true,
            },
            Ask::Gateway => return true,
        };
        address.is_ipv4() == (family == Family::V4)
    }

    /// Reads an item of a list of targets: a string, or a table.
    pub(super) fn read(item: &Item<'_>) -> Result<Self, Problem> {
        if !item.is_table() {
            return item.text(str::parse);
        }
        let table = item.table(KEYS)?;
        let mut kinds = KINDS.iter().filter_map(|kind| Some((*kind, table.get(kind)?)));
        let Some((kind, kind_item)) = kinds.next() else {
            return Err(table.problem(format!("targets need one of {} in each table", KINDS.join(", "))));
        };
        if let Some((other, other_item)) = kinds.next() {
            return Err(
                other_item.problem(format!("targets cannot have {kind} and {other}: make it two tables"))
            );
        }
        for (key, its_kind) in [("status", "url"), ("body", "url"), ("name", "dns"), ("answer", "dns")] {
            if let Some(item) = table.get(key).filter(|_| kind != its_kind) {
                return Err(item.problem(format!("{key} belongs to targets with {its_kind}: remove it")));
            }
        }
        let mut target = match kind {
            "ping" => kind_item.text(|text| check::host("ping", text)).map(Self::from)?,
            "tcp" => kind_item.text(tcp)?,
            "url" => Self::page(&table, &kind_item)?,
            "dns" => Self::name(&table, &kind_item)?,
            _ if kind_item.flag()? => Self::new("gateway".to_owned(), Ask::Gateway),
            _ => return Err(kind_item.problem("gateway can only be true: remove the table otherwise")),
        };
        target.weight = table.number("weight", (1, 255), 1)?;
        Ok(target)
    }

    fn new(text: String, ask: Ask) -> Self {
        Self { text, ask, weight: 1 }
    }

    fn page(table: &Table<'_>, url: &Item<'_>) -> Result<Self, Problem> {
        let mut page = url.text(page)?;
        if let Some(item) = table.get("status") {
            page.status = Some(item.number((200, 599))?);
        }
        page.body = table.get("body").map(|item| item.text(body)).transpose()?;
        let text = url.text(|text| Ok(text.to_owned()))?;
        Ok(Self::new(text, Ask::Page(page)))
    }

    fn name(table: &Table<'_>, server: &Item<'_>) -> Result<Self, Problem> {
        let (server, port) = server.text(server_and_port)?;
        let name = table.need("name", "name = \"example.com\"")?.text(host_name)?;
        let answer = table.get("answer").map(|item| item.text(address)).transpose()?;
        let text = name_text(server, port, &name);
        Ok(Self::new(text, Ask::Name(NameQuery { server, port, name, answer })))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl HostName {
    /// Its name, if it has one that must be looked up.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A host to ping.
impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Self {
        Self::new(address.to_string(), Ask::Ping(address))
    }
}

/// The short form. The error is a sentence for whoever has written it.
impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "gateway" {
            return Ok(Self::new(text.to_owned(), Ask::Gateway));
        }
        match text.split_once("://") {
            Some(("http" | "https", _)) => Ok(Self::new(text.to_owned(), Ask::Page(page(text)?))),
            Some(("tcp", to)) => tcp(to),
            Some(("dns", rest)) => {
                let (server, name) = rest.split_once('/').unwrap_or((rest, ""));
                let (server, port) = server_and_port(server)?;
                let name = host_name(name)?;
                let text = name_text(server, port, &name);
                Ok(Self::new(text, Ask::Name(NameQuery { server, port, name, answer: None })))
            }
            Some((scheme, _)) => Err(format!("targets cannot begin with {scheme:?}: write {FORMS}")),
            None if text.parse::<IpAddr>().is_ok() => check::host("targets", text).map(Self::from),
            None => Err(format!("targets must be {FORMS}")),
        }
    }
}

fn name_text(server: IpAddr, port: u16, name: &str) -> String {
    match (server, port) {
        (server, DNS_PORT) => format!("dns://{server}/{name}"),
        (IpAddr::V4(server), port) => format!("dns://{server}:{port}/{name}"),
        (IpAddr::V6(server), port) => format!("dns://[{server}]:{port}/{name}"),
    }
}

/// `HOST:PORT`.
fn tcp(text: &str) -> Result<Target, String> {
    let wrong =
        || "tcp must be a host and a port, such as \"9.9.9.9:443\" or \"[2620:fe::9]:443\"".to_owned();
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    let port = authority.port_u16().filter(|&port| port != 0).ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err(wrong());
    }
    let host = host(&authority)?;
    Ok(Target::new(format!("tcp://{authority}"), Ask::Tcp(Endpoint { host, port })))
}

/// A URL.
fn page(text: &str) -> Result<Page, String> {
    let wrong =
        || "url must be like \"http://192.0.2.1/generate_204\" or \"https://example.com/\"".to_owned();
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let tls = match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(wrong()),
    };
    let authority = url.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err("url cannot have a user and a password".to_owned());
    }
    let port = match authority.port() {
        None if tls => 443,
        None => 80,
        Some(port) => Some(port.as_u16()).filter(|&port| port != 0).ok_or_else(wrong)?,
    };
    let from = Endpoint { host: host(authority)?, port };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    // Whoever offers such a page says by an empty answer that nothing is in between.
    let status = url.path().ends_with("generate_204").then_some(204);
    Ok(Page { tls, from, authority: authority.to_string(), path: path.to_owned(), status, body: None })
}

fn host(authority: &Authority) -> Result<HostName, String> {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host) {
        text if bare.is_some() || text.parse::<IpAddr>().is_ok() => {
            check::host("targets", text).map(HostName::Address)
        }
        name => host_name(name).map(HostName::Name),
    }
}

/// `SERVER`, `SERVER:PORT` or `[SERVER]:PORT`.
fn server_and_port(text: &str) -> Result<(IpAddr, u16), String> {
    let (server, port) = if let Ok(both) = text.parse::<std::net::SocketAddr>() {
        (both.ip(), both.port())
    } else {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let server = bare.parse().map_err(|_| {
                "dns must be the address of a name server: \"dns://9.9.9.9/example.com\", or { dns = \"9.9.9.9\", \
                 name = \"example.com\" }"
                    .to_owned()
            })?;
        (server, DNS_PORT)
    };
    if port == 0 {
        return Err("dns cannot have the port 0".to_owned());
    }
    check::host("dns", &server.to_string()).map(|server| (server, port))
}

/// A name that can be looked up (RFC 1123, 2.1, and RFC 1035, 2.3.4), with `_` as well, which occurs.
fn host_name(text: &str) -> Result<String, String> {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or(name);
    if name.len() <= 253 && name.split('.').all(fits) && !last.chars().all(|c| c.is_ascii_digit()) {
        return Ok(name.to_ascii_lowercase());
    }
    Err("targets need a whole host name in ASCII, such as \"example.com\"".to_owned())
}

fn body(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("body must have something to look for".to_owned()) } else { Ok(text.to_owned()) }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "answer must be an IPv4 or IPv6 address".to_owned())
}
