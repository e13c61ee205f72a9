//! The webhook: each event is posted as JSON.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::deliver::{Carrier, CarrierError};
use super::event::Event;
use crate::config::WebhookConfig;

/// Posts events.
pub(super) struct Webhook {
    config: WebhookConfig,
    /// Made when it is needed first, of the machine's certificates.
    tls: OnceCell<TlsConnector>,
}

/// What is posted: the event, and a sentence about it, which chats show.
#[derive(Serialize)]
struct Posted<'a> {
    #[serde(flatten)]
    event: &'a Event,
    text: String,
}

impl Webhook {
    pub(super) fn new(config: WebhookConfig) -> Self {
        Self { config, tls: OnceCell::new() }
    }

    async fn post(&self, event: &Event) -> Result<StatusCode, PostError> {
        let url = &self.config.url;
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_tls = url.scheme_str() == Some("https");
        let stream =
            TcpStream::connect((host, url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }))).await;
        let stream = stream.map_err(PostError::Connect)?;
        let request = request(&self.config, event)?;
        if is_tls {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| PostError::Name)?;
            let tls = self.tls.get_or_try_init(connector).await?;
            send(tls.connect(name, stream).await.map_err(PostError::Connect)?, request).await
        } else {
            send(stream, request).await
        }
    }
}

impl Carrier for Webhook {
    fn name(&self) -> String {
        // Not its path and query: they often are a secret.
        let url = &self.config.url;
        format!(
            "webhook {}://{}",
            url.scheme_str().unwrap_or_default(),
            url.authority().map_or("", |a| a.as_str())
        )
    }

    fn patience(&self) -> Duration {
        self.config.timeout
    }

    async fn carry(&self, events: Vec<Event>, _: u64) -> Result<(), CarrierError> {
        for event in &events {
            match self.post(event).await {
                Ok(status) => judge(status)?,
                Err(error) => return Err(CarrierError::NotNow(error.to_string())),
            }
        }
        Ok(())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the host is no name that a certificate could have")]
    Name,
    #[error("cannot read the certificates of this machine: {0}")]
    Certificates(String),
    #[error("cannot make a request: {0}")]
    Request(String),
    #[error("no answer: {0}")]
    Answer(#[from] hyper::Error),
}

/// Whether a server that answers so has taken the event. What is wrong with the request will be wrong again.
fn judge(status: StatusCode) -> Result<(), CarrierError> {
    const TOO_EARLY: u16 = 425;
    let answered = || format!("answered {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | TOO_EARLY | 429 | 500..=599 => Err(CarrierError::NotNow(answered())),
        _ => Err(CarrierError::Never(answered())),
    }
}

fn request(config: &WebhookConfig, event: &Event) -> Result<Request<Full<Bytes>>, PostError> {
    let wrong = |error: &dyn std::error::Error| PostError::Request(error.to_string());
    let url = &config.url;
    let host = url.authority().map_or("", |authority| authority.as_str());
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let json = serde_json::to_vec(&Posted { event, text: event.summary() }).map_err(|error| wrong(&error))?;
    let mut request = Request::new(Full::new(Bytes::from(json)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| wrong(&error))?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| wrong(&error))?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("balance/", env!("CARGO_PKG_VERSION"))));
    headers.extend(config.headers.iter().cloned());
    Ok(request)
}

/// Sends a request on a connection of its own; what the answer says besides its status is of no interest.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection works as long as it is asked to, and ends with this request.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // Some servers break it off as soon as they have answered.
        ended = connection => answer.await.map_err(|error| ended.err().unwrap_or(error)),
    };
    Ok(answer?.status())
}

/// TLS by what this machine trusts.
async fn connector() -> Result<TlsConnector, PostError> {
    let wrong = |error: &dyn std::error::Error| PostError::Certificates(error.to_string());
    // It reads files.
    let found =
        spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(PostError::Certificates(why));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| wrong(&error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::event::tests::event;
    use super::*;

    fn config(url: &str) -> WebhookConfig {
        let header = ("authorization".parse().unwrap(), "Bearer x".parse().unwrap());
        WebhookConfig { url: url.parse().unwrap(), timeout: Duration::from_secs(1), headers: vec![header] }
    }

    #[test]
    fn the_request_is_the_event_as_json_with_a_sentence_and_the_headers_that_were_asked_for() {
        let request = request(&config("http://192.0.2.1:8080/hook?key=1"), &event("CABLE", "down")).unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/hook?key=1".to_owned()));
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("host"), "192.0.2.1:8080");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("authorization"), "Bearer x");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(request.into_body().collect()).unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["text"], "CABLE is down, was up: no answer from 1.1.1.1 for 0.8 s");
        assert_eq!((&json["isp"], &json["consequence"]["flows_cut"]), (&"CABLE".into(), &5.into()));
    }

    #[test]
    fn a_url_without_a_path_asks_for_the_root_and_what_is_secret_is_not_in_the_name() {
        let request = request(&config("https://example.org"), &event("CABLE", "down")).unwrap();
        assert_eq!(request.uri().to_string(), "/");
        let name = Webhook::new(config("https://example.org:444/secret?key=1")).name();
        assert_eq!(name, "webhook https://example.org:444");
    }

    #[test]
    fn what_may_be_taken_later_is_tried_again_and_what_is_refused_is_not() {
        let retry = |code: u16| match judge(StatusCode::from_u16(code).unwrap()) {
            Ok(()) => None,
            Err(CarrierError::NotNow(_)) => Some(true),
            Err(CarrierError::Never(_)) => Some(false),
        };
        for (codes, expected) in [
            (&[200, 202, 204][..], None),
            (&[408, 425, 429, 500, 502, 503, 599], Some(true)),
            (&[301, 400, 401, 404, 410], Some(false)),
        ] {
            assert!(codes.iter().all(|&code| retry(code) == expected), "{codes:?}");
        }
    }
}
