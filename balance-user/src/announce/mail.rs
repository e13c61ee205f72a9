//! Mails: one at once, then digests.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use tokio::task::spawn_blocking;

use super::deliver::{Carrier, CarrierError};
use super::event::{Event, Kind, Probes};
use crate::config::{MailConfig, MailSecurity};

/// How long a mail may take: some servers are slow on purpose.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a server may take to be reached: if the ISP dies meanwhile, the next try goes by another one.
const CONNECT: Duration = Duration::from_secs(5);

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Sends mails.
pub(super) struct Mail(pub(super) MailConfig);

impl Carrier for Mail {
    fn name(&self) -> String {
        let to: Vec<String> = self.0.to.iter().map(|mailbox| mailbox.email.to_string()).collect();
        format!("mail to {}", to.join(", "))
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    async fn carry(&self, events: Vec<Event>, dropped: u64) -> Result<(), CarrierError> {
        let config = self.0.clone();
        let host = host_name();
        let message = message(&config, host.as_deref(), &events, dropped)
            .map_err(|error| CarrierError::Never(error.to_string()))?;
        // It reads files.
        let transport = spawn_blocking(move || transport(&config, host));
        let transport = transport.await.map_err(|error| CarrierError::NotNow(error.to_string()))??;
        match transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(CarrierError::Never(error.to_string())),
            Err(error) => Err(CarrierError::NotNow(error.to_string())),
        }
    }
}

fn message(
    config: &MailConfig,
    host: Option<&str>,
    events: &[Event],
    dropped: u64,
) -> Result<Message, lettre::error::Error> {
    let message = Message::builder().from(config.from.clone()).date_now();
    let message = config.to.iter().fold(message, |message, to| message.to(to.clone()));
    let message = message.message_id(None).subject(subject(host, events));
    message.header(ContentType::TEXT_PLAIN).body(body(events, dropped))
}

/// What it is about: of one event all that matters, of several the last state of each ISP.
fn subject(host: Option<&str>, events: &[Event]) -> String {
    let mut isps: Vec<(&str, Kind, String)> = Vec::new();
    for Event { change, .. } in events {
        isps.retain(|(isp, kind, _)| (*isp, *kind) != (change.isp.as_str(), change.kind));
        isps.push((&change.isp, change.kind, change.headline()));
    }
    let on = host.map(|host| format!(" on {host}")).unwrap_or_default();
    let states: Vec<String> = isps.into_iter().map(|(.., headline)| headline).collect();
    match events.len() {
        0 | 1 => format!("balance{on}: {}", states.join("")),
        count => format!("balance{on}: {count} changes, {}", states.join(", ")),
    }
}

fn body(events: &[Event], dropped: u64) -> String {
    let mut text: String = events.iter().map(described).collect::<Vec<_>>().join("\n");
    if dropped > 0 {
        let _ = write!(text, "\nBefore these there were {dropped} more; `balance-user events` has them.\n");
    }
    text
}

/// Everything about an event, a line each.
fn described(event: &Event) -> String {
    let Event { time, instance, change, consequence } = event;
    let Probes { replied, waiting, lost, late, .. } = change.probes;
    let mut text = format!("{}\n", event.summary());
    let mut line = |what: &str, value: &str| {
        let _ = writeln!(text, "  {what:<12} {value}");
    };
    line("when", &time.short().to_string());
    line("evidence", &change.evidence);
    line("consequence", &consequence.to_string());
    line("device", &change.device);
    line("probes", &format!("{replied} answered, {lost} lost, {late} of these late, {waiting} under way"));
    line("instance", instance);
    text
}

fn transport(config: &MailConfig, host: Option<String>) -> Result<Transport, CarrierError> {
    let server = &config.server;
    let tls =
        || TlsParameters::new(server.host.clone()).map_err(|error| CarrierError::NotNow(error.to_string()));
    let tls = match server.security {
        MailSecurity::Plain => Tls::None,
        MailSecurity::StartTls => Tls::Required(tls()?),
        MailSecurity::Tls => Tls::Wrapper(tls()?),
    };
    let mut builder =
        Transport::builder_dangerous(&server.host).port(server.port).tls(tls).timeout(Some(CONNECT));
    if let Some(host) = host {
        builder = builder.hello_name(ClientId::Domain(host));
    }
    if let Some((user, file)) = &config.login {
        builder = builder.credentials(Credentials::new(user.clone(), password(file)?));
    }
    Ok(builder.build())
}

fn password(file: &Path) -> Result<String, CarrierError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(CarrierError::NotNow(format!("cannot read {}: {error}", file.display()))),
    }
}

/// This machine's name, if it is one that servers take.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;

    #[test]
    fn the_subject_tells_the_last_state_of_each_isp() {
        let one = [event("CABLE", "down")];
        assert_eq!(subject(Some("router"), &one), "balance on router: CABLE is down");
        let several = [event("CABLE", "down"), event("DSL", "down"), event("CABLE", "up")];
        assert_eq!(subject(None, &several), "balance: 3 changes, DSL is down, CABLE is up");
    }

    #[test]
    fn the_body_has_everything_about_each_event() {
        let text = body(&[event("CABLE", "down"), event("DSL", "up")], 2);
        let expected = "\
CABLE is down, was up: no answer from 1.1.1.1 for 0.8 s
  when         2023-11-14T22:13:20Z
  evidence     no answer from 1.1.1.1 for 0.8 s
  consequence  3072 buckets moved away, 1 connection reset, 5 flows cut
  device       eth0
  probes       90 answered, 9 lost, 2 of these late, 1 under way
  instance     main

DSL is up, was down: no answer from 1.1.1.1 for 0.8 s
";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with("\nBefore these there were 2 more; `balance-user events` has them.\n"),
            "{text}"
        );
    }
}
