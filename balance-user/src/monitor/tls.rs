//! Whom to believe that they are who they say: the certificates that this machine trusts.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use super::Failure;
use crate::config::HostName;

/// Reading them takes some milliseconds; they change when the system is upgraded.
const RELOAD_AFTER: Duration = Duration::from_hours(1);

/// The certificates as they were last read, for all probers.
static LOADED: Mutex<Option<(Instant, Arc<ClientConfig>)>> = Mutex::const_new(None);

/// Makes a connection secure, and the host at its end prove who it is.
pub(super) async fn secure(stream: TcpStream, host: &HostName) -> Result<TlsStream<TcpStream>, Failure> {
    let name = match host {
        HostName::Address(address) => ServerName::from(*address),
        HostName::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Failure::Tls(format!("{name} cannot be in a certificate")))?,
    };
    let connector = TlsConnector::from(config().await?);
    let to = stream.peer_addr().map_err(Failure::Send)?;
    connector.connect(name, stream).await.map_err(|error| failure(host, error, to.ip(), to.port()))
}

async fn config() -> Result<Arc<ClientConfig>, Failure> {
    let mut loaded = LOADED.lock().await;
    if let Some((at, config)) = loaded.as_ref()
        && at.elapsed() < RELOAD_AFTER
    {
        return Ok(Arc::clone(config));
    }
    let config =
        tokio::task::spawn_blocking(load).await.map_err(|error| Failure::Tls(error.to_string()))??;
    Ok(Arc::clone(&loaded.insert((Instant::now(), Arc::new(config))).1))
}

/// Takes from the system whom it trusts.
fn load() -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = "this machine trusts no certificates: install ca-certificates, or use http";
        return Err(Failure::Tls(why.to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::Tls(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // Each probe proves it anew, and takes as long as those before.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn failure(host: &HostName, error: io::Error, ip: IpAddr, port: u16) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(wrong)) => {
            Failure::Certificate { host: host.to_string(), why: words(wrong) }
        }
        Some(other) => Failure::Tls(format!("{host} does not speak TLS as it should: {other}")),
        None => Failure::Connection { to: (ip, port).into(), source: error },
    }
}

fn words(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for somebody else: a captive portal?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is not trusted by this machine: a captive portal?".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: is this machine's clock right?".to_owned()
        }
        other => format!("is not valid: {other}"),
    }
}
