//! The addresses of names, as name servers tell them through one ISP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::way::{PUBLIC_RESOLVERS, Way};
use super::{Failure, query};
use crate::core::family_name;

/// A server that has not answered for so long is joined by the next one.
const STAGGER: Duration = Duration::from_millis(300);
/// However short a name's time is, it is kept for so long: it would be asked for with each probe otherwise.
const LEAST_TTL: Duration = Duration::from_secs(10);
const MOST_TTL: Duration = Duration::from_hours(24);
/// How long a name that has no address counts as such.
const ABSENT_TTL: Duration = Duration::from_mins(10);
/// How long looking up a name anew may take, while the old address is in use.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<String, Arc<Entry>>>);

/// One name.
#[derive(Debug, Default)]
struct Entry {
    known: Mutex<Option<Found>>,
    /// Locked by whoever looks it up, so that one question at a time is asked.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Found {
    /// None: it has no address of the family.
    address: Option<IpAddr>,
    at: Instant,
    ttl: Duration,
}

impl Names {
    /// An address of a name, looked up if it is not known. That takes no longer than `limit`.
    pub(super) async fn find(&self, way: &Way, name: &str, limit: Duration) -> Result<IpAddr, Failure> {
        let entry = self.entry(name);
        let look_up = async {
            if let Some(found) = entry.fresh() {
                return Ok(found.address);
            }
            let _asking = entry.asking.lock().await;
            // Somebody else may have found it meanwhile.
            if let Some(found) = entry.fresh() {
                return Ok(found.address);
            }
            let found = look_up(way, name).await?;
            let had_one = entry.known().as_ref().is_some_and(|before| before.address.is_some());
            if found.address.is_none() && had_one {
                // Addresses do not come to an end: somebody lies, or is broken.
                let why = format!("its {} address is gone", family_name(way.family));
                return Err(Failure::Lookup { name: name.to_owned(), why });
            }
            let address = found.address;
            *entry.known() = Some(found);
            Ok(address)
        };
        let address = timeout(limit, look_up).await.unwrap_or_else(|_| Err(silent(way, name)))?;
        let none = || format!("{name} has no {} address", family_name(way.family));
        address.ok_or_else(|| Failure::Inapplicable(none()))
    }

    /// Looks a name up again if half of its time is over, so that no probe has to wait for it. It stays as it is where that fails.
    pub(super) async fn refresh(&self, way: &Way, name: &str) {
        let entry = self.entry(name);
        // Where somebody else looks it up, nothing has to be done.
        let Ok(_asking) = entry.asking.try_lock() else { return };
        let is_old = entry.known().as_ref().is_some_and(|found| found.at.elapsed() > found.ttl / 2);
        if is_old
            && let Ok(Ok(found)) = timeout(REFRESH_TIMEOUT, look_up(way, name)).await
            && found.address.is_some()
        {
            *entry.known() = Some(found);
        }
    }

    fn entry(&self, name: &str) -> Arc<Entry> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(names.entry(name.to_owned()).or_default())
    }
}

impl Entry {
    fn known(&self) -> MutexGuard<'_, Option<Found>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known and still true.
    fn fresh(&self) -> Option<Found> {
        self.known().clone().filter(|found| found.at.elapsed() < found.ttl)
    }
}

/// Asks the name servers, one after the other where they do not answer. The first one that says anything counts.
async fn look_up(way: &Way, name: &str) -> Result<Found, Failure> {
    let servers = servers(way);
    if servers.is_empty() {
        let family = family_name(way.family);
        return Err(Failure::Inapplicable(format!("no name server in `resolvers` has an {family} address")));
    }
    let mut waiting = servers.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(server) = waiting.next() {
            asked.push(query::ask(way, (server, DNS_PORT), name, way.family));
        }
        let patience =
            async { if waiting.len() == 0 { std::future::pending().await } else { sleep(STAGGER).await } };
        tokio::select! {
            answer = asked.next() => match answer {
                Some(Ok((known, _))) => {
                    let address = known.addresses.first().copied();
                    let ttl = if address.is_some() { known.ttl.clamp(LEAST_TTL, MOST_TTL) } else { ABSENT_TTL };
                    return Ok(Found { address, at: Instant::now(), ttl });
                }
                Some(Err(why)) => failure = Some(why),
                // All that there are have failed.
                None => return Err(failure.unwrap_or_else(|| silent(way, name))),
            },
            () = patience => {}
        }
    }
}

fn silent(way: &Way, name: &str) -> Failure {
    let servers: Vec<_> = servers(way).iter().map(ToString::to_string).collect();
    Failure::Lookup { name: name.to_owned(), why: format!("no answer from {}", servers.join(", ")) }
}

/// The name servers to ask: those of the config; else those of the system, behind which come well-known ones, as an ISP's
/// may refuse to answer the customers of another.
fn servers(way: &Way) -> Vec<IpAddr> {
    if !way.resolvers.is_empty() {
        return way.of_family(way.resolvers.iter().copied());
    }
    let system = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let mut servers = way.of_family(of_the_system(&system));
    for public in way.of_family(PUBLIC_RESOLVERS) {
        if !servers.contains(&public) {
            servers.push(public);
        }
    }
    servers
}

/// The name servers of a resolv.conf that can be asked through an ISP: not this machine itself.
fn of_the_system(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    servers.filter(|server| !server.is_loopback() && !server.is_unspecified()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_name_servers_are_those_on_other_hosts() {
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 127.0.0.53\nnameserver\t192.0.2.1\n\
                    nameserver 2001:db8::1\nnameserver fe80::1%eth0\noptions edns0\n nameserver ::1\n";
        let expected = ["192.0.2.1", "2001:db8::1"].map(|server| server.parse::<IpAddr>().unwrap());
        assert_eq!(of_the_system(text), expected);
        assert!(of_the_system("").is_empty());
    }
}
