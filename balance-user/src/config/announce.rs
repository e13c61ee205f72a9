//! Reading `[mail]` and `[webhook]`: who is told of changes besides the hooks.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use lettre::message::Mailbox;

use super::check;
use super::error::Problem;
use super::reader::Table;

const MAIL_KEYS: &[&str] = &["to", "from", "server", "user", "password_file", "digest"];
const WEBHOOK_KEYS: &[&str] = &["url", "timeout", "headers"];
const SECOND: Duration = Duration::from_secs(1);

/// Mails to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailConfig {
    /// Whom to write to; at least one.
    pub to: Vec<Mailbox>,
    /// Whom it is from.
    pub from: Mailbox,
    /// What takes the mail.
    pub server: MailServer,
    /// The user name, and the file that has the password.
    pub login: Option<(String, PathBuf)>,
    /// The least time between two mails: 1 second to 1 day.
    pub digest: Duration,
}

/// What takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// Not at all.
    Plain,
    /// By TLS, begun with `STARTTLS`; without it nothing is sent.
    StartTls,
    /// By TLS from the beginning.
    Tls,
}

/// JSON to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where to: `http` or `https`, with a host.
    pub url: Uri,
    /// How long a request may take: 100 ms to 1 minute.
    pub timeout: Duration,
    /// Further headers of the request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Mails, if they are wanted.
pub(super) fn mail(top: &Table<'_>) -> Result<Option<MailConfig>, Problem> {
    let Some(mail) = top.get("mail") else { return Ok(None) };
    let mail = mail.table(MAIL_KEYS)?;
    let to_item = mail.need("to", "to = \"you@example.org\"")?;
    let to = to_item.one_or_more()?.into_iter().map(|item| item.text(|text| mailbox("to", text)));
    let to = to.collect::<Result<Vec<_>, _>>()?;
    if to.is_empty() {
        return Err(to_item.problem("to has no address: add one, or remove [mail]"));
    }
    let from = mail.get("from").map(|item| item.text(|text| mailbox("from", text))).transpose()?;
    let server = mail.get("server").map(|item| item.text(server)).transpose()?;
    let server = server.unwrap_or_else(MailServer::local);
    let password_file =
        mail.get("password_file").map(|item| Ok((item, item.text(password_file)?))).transpose()?;
    let login = match (mail.get("user"), password_file) {
        (None, None) => None,
        (Some(user), None) => return Err(user.problem("user needs a password_file beside it")),
        (None, Some((file, _))) => return Err(file.problem("password_file needs a user beside it")),
        (Some(user), Some(_)) if server.security == MailSecurity::Plain && !server.is_local() => {
            return Err(user.problem(
                "user needs a server with \"smtps://\" or \"starttls://\": others could read the password on its way",
            ));
        }
        (Some(user), Some((_, file))) => Some((user.text(|text| Ok(text.to_owned()))?, file)),
    };
    Ok(Some(MailConfig {
        to,
        from: match from {
            Some(from) => from,
            None => mailbox("from", "balance@localhost").map_err(|message| mail.problem(message))?,
        },
        server,
        login,
        digest: mail.duration("digest", (SECOND, 86_400 * SECOND), 60 * SECOND)?,
    }))
}

/// The webhook, if there is one.
pub(super) fn webhook(top: &Table<'_>) -> Result<Option<WebhookConfig>, Problem> {
    let Some(webhook) = top.get("webhook") else { return Ok(None) };
    let webhook = webhook.table(WEBHOOK_KEYS)?;
    let url = webhook.need("url", "url = \"https://example.org/hook\"")?.text(url)?;
    let timeout = webhook.duration("timeout", (SECOND / 10, 60 * SECOND), 10 * SECOND)?;
    let mut headers = Vec::new();
    for (name, item) in webhook.get("headers").map_or(Ok(Vec::new()), |item| item.pairs())? {
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| item.problem(format!("headers: `{name}` is no name of a header")))?;
        headers.push((known, item.text(header_value)?));
    }
    Ok(Some(WebhookConfig { url, timeout, headers }))
}

impl MailServer {
    /// The one of this machine.
    fn local() -> Self {
        Self { host: "localhost".to_owned(), port: 25, security: MailSecurity::Plain }
    }

    fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// An address of mail, maybe with a name.
pub(crate) fn mailbox(what: &str, text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| format!("{what} must be an address such as \"you@example.org\""))
}

fn server(text: &str) -> Result<MailServer, String> {
    let wrong = || {
        "server must be \"smtp://HOST:PORT\", \"starttls://HOST:PORT\" or \"smtps://HOST:PORT\"; the port may be left out"
            .to_owned()
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let (security, usual_port) = match scheme {
        "smtp" => (MailSecurity::Plain, 25),
        "starttls" => (MailSecurity::StartTls, 587),
        "smtps" => (MailSecurity::Tls, 465),
        _ => return Err(wrong()),
    };
    // As the part of a URL that it is: IPv6 addresses have brackets.
    let authority: Authority = rest.parse().map_err(|_| wrong())?;
    if authority.as_str().contains('@') {
        return Err("server cannot have a user: write it into user and password_file".to_owned());
    }
    let port = port(&authority, usual_port).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() { Err(wrong()) } else { Ok(MailServer { host, port, security }) }
}

fn password_file(text: &str) -> Result<PathBuf, String> {
    check::folder(text).map_err(|_| "password_file must be a path from the root".to_owned())
}

fn url(text: &str) -> Result<Uri, String> {
    let wrong = || "url must be like \"https://example.org/hook\" or \"http://192.0.2.1:8080/\"".to_owned();
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err("url cannot have a user: write an Authorization into headers".to_owned());
    }
    let has_host = !authority.host().is_empty() && port(authority, 80).is_some();
    if matches!(url.scheme_str(), Some("http" | "https")) && has_host { Ok(url) } else { Err(wrong()) }
}

/// The port, or the usual one; none if what is there is no port.
fn port(authority: &Authority, usual: u16) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())?.strip_prefix(':') {
        None => Some(usual),
        Some(port) => port.parse().ok().filter(|&port| port != 0),
    }
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    text.parse().map_err(|_| "headers cannot have line breaks and other control characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_mail_are_urls_with_the_usual_ports() {
        let parts = |text: &str| server(text).map(|server| (server.host, server.port, server.security));
        let case = |host: &str, port, security| Ok((host.to_owned(), port, security));
        assert_eq!(parts("smtp://localhost"), case("localhost", 25, MailSecurity::Plain));
        assert_eq!(parts("starttls://mx.example.org"), case("mx.example.org", 587, MailSecurity::StartTls));
        assert_eq!(parts("smtps://192.0.2.1:2465"), case("192.0.2.1", 2465, MailSecurity::Tls));
        assert_eq!(parts("smtp://[2001:db8::1]:26"), case("2001:db8::1", 26, MailSecurity::Plain));
        for bad in [
            "",
            "localhost",
            "smtp://",
            "smtp://:25",
            "http://localhost",
            "smtp://localhost:0",
            "smtp://localhost:",
            "smtp://localhost:99999",
            "smtp://a b",
            "smtp://a/b",
            "smtp://user@localhost",
            "smtp://2001:db8::1",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn webhooks_are_urls_of_http() {
        for good in ["http://192.0.2.1", "https://example.org/a/b?c=d", "http://[::1]:8080/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "/hook",
            "ftp://example.org",
            "http://",
            "http://u:p@example.org/",
            "http://a:0/",
            "http://a:99999/",
            "http://a:/",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
