//! Why a path is in the state it is in, in words for whoever was woken up by it.

use std::fmt;
use std::time::Duration;

use super::{State, Symptom};
use crate::config::Target;

/// Why a path is in its state. `Display` gives the words: empty while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is up: nothing to explain.
    Fine,
    /// It works, but badly.
    Degraded(Vec<Symptom>),
    /// It is not known yet whether these answer.
    Starting(Vec<Target>),
    /// These did not answer.
    NoAnswer {
        /// The targets whose answers are missing.
        missing: Vec<Missing>,
        /// How long ago one of them answered last; none if none ever did.
        since: Option<Duration>,
    },
    /// Packets were sent and nothing came back.
    Silence {
        /// How many packets were sent.
        sent: u64,
        /// In what time.
        within: Duration,
    },
    /// TCP connections were asked for and none came about.
    Unanswered {
        /// How many SYN were sent.
        syns: u64,
        /// Since the first of them.
        lasts: Duration,
    },
    /// There is no way to send anything: the reason as it was given.
    NoPath(String),
    /// It works again, and will be up if it still does in this time.
    Returning(Duration),
    /// There is a way again, and without targets nothing else to judge by: it will be up in this time.
    PathBack(Duration),
    /// It comes and goes, so it will be up only if it still works in this time.
    Held(Duration),
    /// It was so when this process took over.
    Adopted(State),
}

/// A target whose answer is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The target.
    pub target: Target,
    /// What happened instead, if it is known: an ICMP error, an error of the socket. None: just no answer in time.
    pub why: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => Ok(()),
            Self::Degraded(symptoms) => {
                let symptoms: Vec<String> = symptoms.iter().map(ToString::to_string).collect();
                f.write_str(&symptoms.join(", "))
            }
            Self::Starting(targets) if targets.is_empty() => f.write_str("starting"),
            Self::Starting(targets) => write!(f, "waiting for a first answer from {}", List(targets)),
            Self::NoAnswer { missing, since } => no_answer(f, missing, *since),
            Self::Silence { sent: 1, within } => {
                write!(f, "sent 1 packet, received nothing for {} ms", within.as_millis())
            }
            Self::Silence { sent, within } => {
                write!(f, "sent {sent} packets, received nothing for {} ms", within.as_millis())
            }
            Self::Unanswered { syns, lasts } => {
                write!(f, "sent {syns} SYN to several hosts, none answered for {} ms", lasts.as_millis())
            }
            Self::NoPath(why) => f.write_str(why),
            Self::Returning(left) => write!(f, "answering again, up in {} s", seconds_up(*left)),
            Self::PathBack(left) => write!(f, "connected again, up in {} s", seconds_up(*left)),
            Self::Held(left) => write!(f, "comes and goes, held for {}", Seconds(*left)),
            Self::Adopted(state) => write!(f, "{state} when the daemon started"),
        }
    }
}

fn no_answer(f: &mut fmt::Formatter<'_>, missing: &[Missing], since: Option<Duration>) -> fmt::Result {
    let targets: Vec<Target> = missing.iter().map(|missing| missing.target.clone()).collect();
    write!(f, "no answer from {}", List(&targets))?;
    match since {
        Some(time) if time < Duration::from_secs(100) => {
            write!(f, " for {}.{} s", time.as_secs(), time.subsec_millis() / 100)?;
        }
        Some(time) => {
            write!(f, " for {}", humantime::format_duration(Duration::from_secs(time.as_secs() / 60 * 60)))?;
        }
        None => {}
    }
    // Targets of one path mostly fail alike: the first word on it is enough.
    match missing.iter().find_map(|missing| missing.why.as_ref()) {
        Some(why) => write!(f, " ({why})"),
        None => Ok(()),
    }
}

/// Whole seconds, rounded up, with minutes.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::try_from(seconds_up(self.0)).unwrap_or(u64::MAX);
        write!(f, "{}", humantime::format_duration(Duration::from_secs(seconds)))
    }
}

fn seconds_up(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000).max(1)
}

struct List<'a>(&'a [Target]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, target) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{target}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(targets: &[&str], why: Option<&str>) -> Vec<Missing> {
        let one = |target: &&str| Missing { target: target.parse().unwrap(), why: why.map(String::from) };
        targets.iter().map(one).collect()
    }

    #[test]
    fn reasons_read_like_an_operator_wants_them() {
        let two = || missing(&["1.1.1.1", "9.9.9.9"], None);
        let cases = [
            (Reason::Fine, ""),
            (Reason::Starting(vec![]), "starting"),
            (Reason::Starting(vec!["1.1.1.1".parse().unwrap()]), "waiting for a first answer from 1.1.1.1"),
            (
                Reason::NoAnswer { missing: two(), since: Some(Duration::from_millis(849)) },
                "no answer from 1.1.1.1, 9.9.9.9 for 0.8 s",
            ),
            (
                Reason::NoAnswer { missing: two(), since: Some(Duration::from_secs(7325)) },
                "no answer from 1.1.1.1, 9.9.9.9 for 2h 2m",
            ),
            (Reason::NoAnswer { missing: two(), since: None }, "no answer from 1.1.1.1, 9.9.9.9"),
            (
                Reason::NoAnswer {
                    missing: missing(&["2620:fe::9"], Some("network unreachable")),
                    since: None,
                },
                "no answer from 2620:fe::9 (network unreachable)",
            ),
            (
                Reason::Silence { sent: 12, within: Duration::from_millis(300) },
                "sent 12 packets, received nothing for 300 ms",
            ),
            (
                Reason::Unanswered { syns: 9, lasts: Duration::from_millis(1050) },
                "sent 9 SYN to several hosts, none answered for 1050 ms",
            ),
            (Reason::NoPath("no carrier on eth0".into()), "no carrier on eth0"),
            (Reason::Returning(Duration::from_millis(2100)), "answering again, up in 3 s"),
            (Reason::Returning(Duration::ZERO), "answering again, up in 1 s"),
            (Reason::PathBack(Duration::from_secs(5)), "connected again, up in 5 s"),
            (Reason::Held(Duration::from_millis(74_100)), "comes and goes, held for 1m 15s"),
            (
                Reason::Degraded(vec![Symptom::Loss(200), Symptom::Jitter(Duration::from_millis(50))]),
                "loss over 20%, jitter over 50ms",
            ),
            (
                Reason::Degraded(vec![Symptom::Unanswered]),
                "TCP connections are asked for and none is answered",
            ),
            (Reason::Adopted(State::LongDown), "long_down when the daemon started"),
            (Reason::Adopted(State::Down), "down when the daemon started"),
        ];
        for (reason, words) in cases {
            assert_eq!(reason.to_string(), words);
        }
    }
}
