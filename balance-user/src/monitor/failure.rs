//! Why a probe has no answer, in words for the operator.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use balance_common::Family;
use surge_ping::SurgeError;

use crate::core::family_name;

/// Why a probe has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be sent.
    #[error("cannot send: {0}")]
    Send(#[source] io::Error),
    /// A router, or this host when the gateway does not answer, says that it did not arrive.
    #[error("{from} says {}", icmp(*.family, *.kind, *.code))]
    Rejected {
        /// Who says so.
        from: IpAddr,
        /// The family, which says how to read the next two.
        family: Family,
        /// The ICMP type.
        kind: u8,
        /// The ICMP code.
        code: u8,
    },
    /// Nothing came back within the probe's patience.
    #[error("no answer")]
    NoAnswer,
    /// The ping could not be made.
    #[error("{0}")]
    Ping(#[source] SurgeError),
    /// There is no connection.
    #[error("{}", connection(*.to, .source))]
    Connection {
        /// Where to.
        to: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The page is somewhere else, as somebody in between says.
    #[error("redirected to {to}: a captive portal?")]
    Redirected {
        /// Where to.
        to: String,
    },
    /// The page is not what was expected.
    #[error("{0}")]
    Page(String),
    /// Whoever answers for a name cannot prove who they are.
    #[error("the certificate of {host} {why}")]
    Certificate {
        /// The name or address.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// It has no certificates, or there are none here to check them by.
    #[error("{0}")]
    Tls(String),
    /// What comes back is not HTTP.
    #[error("no web server: {0}")]
    Http(#[source] hyper::Error),
    /// A name server refuses to answer.
    #[error("{server} says {code} for {name}")]
    Refused {
        /// The name server.
        server: IpAddr,
        /// The name.
        name: String,
        /// The response code.
        code: &'static str,
    },
    /// A name has other addresses than expected.
    #[error("answer {} instead of {wanted}", addresses(.got))]
    WrongAnswer {
        /// What came back.
        got: Vec<IpAddr>,
        /// What should be among it.
        wanted: IpAddr,
    },
    /// A name has no address, though it should.
    #[error("{server} knows no {} address of {name}", family_name(*.family))]
    NoAddress {
        /// The name server.
        server: IpAddr,
        /// The name.
        name: String,
        /// Of this family.
        family: Family,
    },
    /// No name server has told the address of a name in time.
    #[error("cannot look up {name}: {why}")]
    Lookup {
        /// The name.
        name: String,
        /// What they said instead.
        why: String,
    },
    /// So many probes have no answer yet that another one would only take up room.
    #[error("{0} probes are under way already")]
    TooMany(usize),
    /// What is asked cannot be asked in this family. It is nobody's fault, so it should not count.
    #[error("{0}")]
    Inapplicable(String),
}

fn icmp(family: Family, kind: u8, code: u8) -> String {
    let words = match (family, kind, code) {
        (Family::V4, 3, 0) | (Family::V6, 1, 0) => "network unreachable",
        (Family::V4, 3, 1) | (Family::V6, 1, 3) => "host unreachable",
        (Family::V4, 3, 9 | 10 | 13) | (Family::V6, 1, 1) => "prohibited",
        (Family::V4, 3, _) | (Family::V6, 1, _) => "unreachable",
        (Family::V4, 11, _) | (Family::V6, 3, _) => "time exceeded",
        _ => return format!("ICMP type {kind} code {code}"),
    };
    words.to_owned()
}

fn connection(to: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {to}"),
        io::ErrorKind::ConnectionReset => format!("connection broken off by {to}"),
        io::ErrorKind::UnexpectedEof => format!("connection ended by {to}"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => format!("{to} is unreachable"),
        _ => format!("no connection to {to}: {error}"),
    }
}

fn addresses(addresses: &[IpAddr]) -> impl fmt::Display {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_told_in_words() {
        let from = "192.0.2.1".parse().unwrap();
        let rejected = |family, kind, code| Failure::Rejected { from, family, kind, code }.to_string();
        assert_eq!(rejected(Family::V4, 3, 1), "192.0.2.1 says host unreachable");
        assert_eq!(rejected(Family::V4, 3, 13), "192.0.2.1 says prohibited");
        assert_eq!(rejected(Family::V6, 1, 0), "192.0.2.1 says network unreachable");
        assert_eq!(rejected(Family::V6, 3, 0), "192.0.2.1 says time exceeded");
        assert_eq!(rejected(Family::V4, 12, 0), "192.0.2.1 says ICMP type 12 code 0");
    }

    #[test]
    fn whatever_else_fails_is_told_in_words() {
        let to = "[2001:db8::1]:443".parse().unwrap();
        let connection = |kind: io::ErrorKind| Failure::Connection { to, source: kind.into() }.to_string();
        assert_eq!(connection(io::ErrorKind::ConnectionRefused), "connection refused by [2001:db8::1]:443");
        assert_eq!(connection(io::ErrorKind::HostUnreachable), "[2001:db8::1]:443 is unreachable");
        let got = vec!["198.51.100.9".parse().unwrap(), "198.51.100.10".parse().unwrap()];
        let wrong = Failure::WrongAnswer { got, wanted: "203.0.113.7".parse().unwrap() };
        assert_eq!(wrong.to_string(), "answer 198.51.100.9, 198.51.100.10 instead of 203.0.113.7");
    }
}
