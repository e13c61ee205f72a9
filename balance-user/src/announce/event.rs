//! An event: an ISP has changed its state, or its quota runs out. What, when, evidence and consequence; and how that is said to people, to programs
//! and to hooks.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A change of an ISP's state. This is a line of `events --json` and of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub time: Time,
    /// The instance that the ISP belongs to.
    pub instance: String,
    /// What has changed, and why.
    #[serde(flatten)]
    pub change: Change,
    /// What followed.
    pub consequence: Consequence,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The ISP's state.
    #[default]
    State,
    /// Much of its quota is used.
    QuotaWarning,
    /// All of it is.
    QuotaUsedUp,
    /// There is some again.
    QuotaRenewed,
}

/// What has changed of an ISP, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What this is about. Of what is not about the state, that is told as it is, and was before.
    #[serde(rename = "event", default)]
    pub kind: Kind,
    /// Its name.
    pub isp: String,
    /// Its device.
    pub device: String,
    /// Its state from now on, as it is used: `up`, `degraded`, `down`, `long_down`, `held`. What is forced counts, moments of doubt do not.
    pub state: String,
    /// Its state before; `unknown` at first.
    pub previous: String,
    /// Its state as its health has it, whatever is forced.
    pub health: String,
    /// What `balance-user up` or `down` have forced it to be: `up`, `down`.
    pub forced: Option<String>,
    /// Why, in words.
    pub evidence: String,
    /// What became of its latest probes.
    pub probes: Probes,
}

/// What became of the latest probes of an ISP, 100 at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Its first target, if it has any.
    pub target: Option<String>,
    /// The address that the probes come from, if it has one.
    pub source: Option<String>,
    /// Answered in time.
    pub replied: u32,
    /// Neither answered nor lost yet.
    pub waiting: u32,
    /// Lost: not answered in time.
    pub lost: u32,
    /// Answered after they counted as lost; they are among these.
    pub late: u32,
    /// So many of those that are decided were answered, counted from the latest back to the first that was not.
    pub replied_in_row: u32,
    /// So many of the latest are not decided.
    pub waiting_in_row: u32,
    /// So many of those that are decided were lost, counted from the latest back to the first that was not.
    pub lost_in_row: u32,
    /// The average round-trip time of those that were answered, in microseconds.
    pub rtt_us: Option<u64>,
}

/// What followed from a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consequence {
    /// Buckets of the selection tables, of all policies and both families, that were the ISP's before and are others' now.
    pub buckets_lost: u64,
    /// Buckets that are the ISP's now and were not before.
    pub buckets_gained: u64,
    /// TCP connections that were reset, because their ISP is gone.
    pub connections_reset: u64,
    /// Other flows that were cut loose, to start again by another ISP.
    pub flows_cut: u64,
}

/// A moment, to the millisecond. In text: RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    epoch_ms: u64,
}

impl Time {
    /// The last millisecond of the year 9999, after which the format has no digits.
    const LAST: u64 = 253_402_300_799_999;

    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Seconds of the Unix epoch.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.epoch_ms / 1000
    }

    fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.epoch_ms)
    }

    /// To the second, which is enough for people.
    #[must_use]
    pub fn short(self) -> impl fmt::Display {
        humantime::format_rfc3339_seconds(self.system())
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { epoch_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(Self::LAST) }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.system()).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

impl Event {
    /// What and why, in one sentence: `CABLE is down, was up: no answer from 1.1.1.1 for 0.8 s`.
    #[must_use]
    pub fn summary(&self) -> String {
        self.change.summary()
    }

    /// All of it in one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}  {} ({})", self.time.short(), self.summary(), self.consequence)
    }

    /// The arguments of hooks: those of Net::ISP::Balance and of foolsm, in their order. What is not known is `NA` as there;
    /// `-` stands for no address to warn.
    #[must_use]
    pub fn arguments(&self, warn_email: Option<&str>) -> [String; 16] {
        let Change { isp, device, state, previous, probes, .. } = &self.change;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "NA".to_owned());
        [
            state.clone(),
            isp.clone(),
            text(&probes.target),
            device.clone(),
            warn_email.unwrap_or("-").to_owned(),
            probes.replied.to_string(),
            probes.waiting.to_string(),
            probes.lost.to_string(),
            probes.late.to_string(),
            probes.replied_in_row.to_string(),
            probes.waiting_in_row.to_string(),
            probes.lost_in_row.to_string(),
            probes.rtt_us.unwrap_or(0).to_string(),
            text(&probes.source),
            previous.clone(),
            self.time.seconds().to_string(),
        ]
    }

    /// The variables of hooks.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Change { kind, isp, device, state, previous, health, forced, evidence, probes } = &self.change;
        let Consequence { buckets_lost, buckets_gained, connections_reset, flows_cut } = self.consequence;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            ("BALANCE_EVENT", kind.name().to_owned()),
            ("BALANCE_INSTANCE", self.instance.clone()),
            ("BALANCE_TIME", self.time.to_string()),
            ("BALANCE_ISP", isp.clone()),
            ("BALANCE_DEVICE", device.clone()),
            ("BALANCE_STATE", state.clone()),
            ("BALANCE_PREVIOUS", previous.clone()),
            ("BALANCE_HEALTH", health.clone()),
            ("BALANCE_FORCED", text(forced)),
            ("BALANCE_EVIDENCE", evidence.clone()),
            ("BALANCE_CONSEQUENCE", self.consequence.to_string()),
            ("BALANCE_BUCKETS_LOST", buckets_lost.to_string()),
            ("BALANCE_BUCKETS_GAINED", buckets_gained.to_string()),
            ("BALANCE_CONNECTIONS_RESET", connections_reset.to_string()),
            ("BALANCE_FLOWS_CUT", flows_cut.to_string()),
            ("BALANCE_TARGET", text(&probes.target)),
            ("BALANCE_SOURCE", text(&probes.source)),
            ("BALANCE_RTT_US", probes.rtt_us.map(|us| us.to_string()).unwrap_or_default()),
        ]
    }

    /// The folders of the hooks to run: that of the state, if there is a new one, or of another kind of event; and that of any.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        let Change { kind, state, previous, .. } = &self.change;
        let own = match kind {
            Kind::State => (state != previous).then(|| format!("{state}.d")),
            kind => Some(format!("{}.d", kind.name())),
        };
        own.into_iter().chain(["event.d".to_owned()]).collect()
    }
}

impl Kind {
    /// As hooks are told it, and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::QuotaWarning => "quota_warning",
            Self::QuotaUsedUp => "quota_used_up",
            Self::QuotaRenewed => "quota_renewed",
        }
    }
}

impl Change {
    /// What and why, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { kind, isp, evidence, .. } = self;
        if *kind != Kind::State {
            return format!("{isp} {evidence}");
        }
        let colon = if evidence.is_empty() { "" } else { ": " };
        format!("{isp} is {}, was {}{colon}{evidence}", self.state_in_words(), self.previous)
    }

    /// What, in as few words as fit a subject.
    #[must_use]
    pub fn headline(&self) -> String {
        let Self { kind, isp, state, .. } = self;
        match kind {
            Kind::State => format!("{isp} is {state}"),
            Kind::QuotaWarning => format!("{isp} has used much of its quota"),
            Kind::QuotaUsedUp => format!("{isp} has used up its quota"),
            Kind::QuotaRenewed => format!("{isp} has quota again"),
        }
    }

    /// The state, and whether it is forced.
    fn state_in_words(&self) -> String {
        if self.forced.is_some() { format!("{} (forced)", self.state) } else { self.state.clone() }
    }

    /// Flows are sent there again, or as many as before.
    #[must_use]
    pub fn is_way_back(&self) -> bool {
        match self.kind {
            Kind::State => self.state == "up" || self.state == "degraded" && self.previous != "up",
            Kind::QuotaRenewed => true,
            Kind::QuotaWarning | Kind::QuotaUsedUp => false,
        }
    }
}

impl Consequence {
    /// This and that.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            buckets_lost: self.buckets_lost + other.buckets_lost,
            buckets_gained: self.buckets_gained + other.buckets_gained,
            connections_reset: self.connections_reset + other.connections_reset,
            flows_cut: self.flows_cut + other.flows_cut,
        }
    }
}

/// In words; `nothing moved` if there was none.
impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |count: u64, one: &str, many: &str, rest: &str| match count {
            0 => None,
            1 => Some(format!("1 {one} {rest}")),
            count => Some(format!("{count} {many} {rest}")),
        };
        let parts: Vec<String> = [
            one(self.buckets_lost, "bucket", "buckets", "moved away"),
            one(self.buckets_gained, "bucket", "buckets", "moved here"),
            one(self.connections_reset, "connection", "connections", "reset"),
            one(self.flows_cut, "flow", "flows", "cut"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { f.write_str("nothing moved") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event(isp: &str, state: &str) -> Event {
        Event {
            time: Time { epoch_ms: 1_700_000_000_123 },
            instance: "main".to_owned(),
            change: Change {
                kind: Kind::State,
                isp: isp.to_owned(),
                device: "eth0".to_owned(),
                state: state.to_owned(),
                previous: if state == "up" { "down" } else { "up" }.to_owned(),
                health: state.to_owned(),
                forced: None,
                evidence: "no answer from 1.1.1.1 for 0.8 s".to_owned(),
                probes: Probes {
                    target: Some("1.1.1.1".to_owned()),
                    source: Some("192.0.2.2".to_owned()),
                    replied: 90,
                    waiting: 1,
                    lost: 9,
                    late: 2,
                    replied_in_row: 0,
                    waiting_in_row: 1,
                    lost_in_row: 7,
                    rtt_us: Some(12_345),
                },
            },
            consequence: Consequence {
                buckets_lost: 3072,
                buckets_gained: 0,
                connections_reset: 1,
                flows_cut: 5,
            },
        }
    }

    #[test]
    fn a_line_says_what_when_why_and_what_followed() {
        assert_eq!(
            event("CABLE", "down").line(),
            "2023-11-14T22:13:20Z  CABLE is down, was up: no answer from 1.1.1.1 for 0.8 s (3072 buckets moved away, \
             1 connection reset, 5 flows cut)"
        );
        let mut forced = event("CABLE", "down");
        forced.change.forced = Some("down".to_owned());
        forced.change.evidence.clear();
        forced.consequence = Consequence::default();
        assert_eq!(forced.line(), "2023-11-14T22:13:20Z  CABLE is down (forced), was up (nothing moved)");
    }

    #[test]
    fn what_is_told_of_a_quota_is_a_sentence_of_its_own_and_has_hooks_of_its_own() {
        let mut event = event("DSL", "up");
        event.change.kind = Kind::QuotaUsedUp;
        event.change.evidence = "has used up its quota (51 GB of 50 GB)".to_owned();
        assert_eq!(event.summary(), "DSL has used up its quota (51 GB of 50 GB)");
        assert_eq!(event.folders(), ["quota_used_up.d", "event.d"]);
        assert!(event.environment().contains(&("BALANCE_EVENT", "quota_used_up".to_owned())));
        assert!(serde_json::to_string(&event).unwrap().contains(r#""event":"quota_used_up","isp":"DSL""#));
        assert!(!event.change.is_way_back());
        event.change.kind = Kind::QuotaRenewed;
        assert!(event.change.is_way_back());
    }

    #[test]
    fn events_of_a_history_that_knew_only_states_are_read() {
        let json = serde_json::to_string(&event("CABLE", "down")).unwrap();
        let old = json.replace(r#""event":"state","#, "");
        assert_eq!(serde_json::from_str::<Event>(&old).unwrap(), event("CABLE", "down"));
    }

    #[test]
    fn the_json_is_flat_but_for_probes_and_consequence_and_can_be_read_again() {
        let json = serde_json::to_string(&event("CABLE", "down")).unwrap();
        assert_eq!(
            json,
            r#"{"time":"2023-11-14T22:13:20.123Z","instance":"main","event":"state","isp":"CABLE","device":"eth0","state":"down","previous":"up","health":"down","forced":null,"evidence":"no answer from 1.1.1.1 for 0.8 s","probes":{"target":"1.1.1.1","source":"192.0.2.2","replied":90,"waiting":1,"lost":9,"late":2,"replied_in_row":0,"waiting_in_row":1,"lost_in_row":7,"rtt_us":12345},"consequence":{"buckets_lost":3072,"buckets_gained":0,"connections_reset":1,"flows_cut":5}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event("CABLE", "down"));
    }

    #[test]
    fn the_arguments_are_those_of_net_isp_balance_in_their_order() {
        let arguments = event("CABLE", "down").arguments(Some("root@localhost"));
        let expected = "down CABLE 1.1.1.1 eth0 root@localhost 90 1 9 2 0 1 7 12345 192.0.2.2 up 1700000000";
        assert_eq!(arguments.join(" "), expected);
        let mut bare = event("CABLE", "up");
        bare.change.probes = Probes::default();
        assert_eq!(bare.arguments(None).join(" "), "up CABLE NA eth0 - 0 0 0 0 0 0 0 0 NA down 1700000000");
    }

    #[test]
    fn hooks_of_a_state_are_run_when_it_is_a_new_one_and_those_of_any_event_always() {
        assert_eq!(event("CABLE", "long_down").folders(), ["long_down.d", "event.d"]);
        let mut same = event("CABLE", "down");
        same.change.previous = "down".to_owned();
        assert_eq!(same.folders(), ["event.d"]);
    }

    #[test]
    fn times_that_the_format_cannot_say_are_the_nearest_it_can() {
        let far = UNIX_EPOCH + Duration::from_hours(100_000_000);
        assert_eq!(Time::from(far).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Time::from(UNIX_EPOCH - Duration::from_secs(9)).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
