//! Asks for a page, by HTTP or HTTPS.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::way::Way;
use super::{Failure, tls};
use crate::config::Page;

/// So much of a page is looked through.
const MOST_BODY: usize = 64 * 1024;
/// So much of where one is redirected to is shown.
const MOST_SHOWN: usize = 100;
/// Network Authentication Required (RFC 6585, 6).
const PORTAL_STATUS: u16 = 511;

/// Asks for a page; how long it took until the head of the answer was there.
pub(super) async fn ask(way: &Way, page: &Page, to: SocketAddr) -> Result<Duration, Failure> {
    let start = Instant::now();
    let stream = way.connect(to).await?;
    if page.tls {
        exchange(tls::secure(stream, &page.from.host).await?, page, start).await
    } else {
        exchange(stream, page, start).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    page: &Page,
    start: Instant,
) -> Result<Duration, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    let request = Request::get(&page.path)
        .header(HOST, &page.authority)
        .header(USER_AGENT, concat!("balance/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Page(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(Failure::Http)?;
        let rtt = start.elapsed();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        judge(page, response.status().as_u16(), location)?;
        match &page.body {
            Some(wanted) if !contains(response, wanted).await? => {
                Err(Failure::Page(format!("the page does not contain {wanted:?}: a captive portal?")))
            }
            _ => Ok(rtt),
        }
    };
    alongside(answer, connection).await
}

/// Drives `work`, and for as long as that lasts what it needs.
async fn alongside<T>(work: impl Future<Output = T>, needed: impl Future) -> T {
    match select(pin!(work), pin!(needed)).await {
        Either::Left((result, _)) => result,
        Either::Right((_, work)) => work.await,
    }
}

/// Whether an answer with this head is the one that is wanted.
fn judge(page: &Page, status: u16, location: Option<&str>) -> Result<(), Failure> {
    let is_wanted = page.status.map_or((200..300).contains(&status), |wanted| wanted == status);
    if is_wanted {
        return Ok(());
    }
    Err(match (status, page.status) {
        (300..400, _) => {
            let to: String = location.unwrap_or("somewhere else").chars().take(MOST_SHOWN).collect();
            Failure::Redirected { to }
        }
        (PORTAL_STATUS, _) => Failure::Page("a captive portal wants a login (status 511)".to_owned()),
        (200..300, Some(wanted)) => {
            Failure::Page(format!("status {status} instead of {wanted}: a captive portal?"))
        }
        (_, Some(wanted)) => Failure::Page(format!("status {status} instead of {wanted}")),
        (_, None) => Failure::Page(format!("status {status}")),
    })
}

/// Whether the beginning of a page contains this.
async fn contains(response: Response<Incoming>, wanted: &str) -> Result<bool, Failure> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(Failure::Http)?.data_ref() {
            text.extend_from_slice(data);
        }
        if is_in(&text, wanted) {
            return Ok(true);
        }
        if text.len() > MOST_BODY {
            break;
        }
    }
    Ok(false)
}

fn is_in(text: &[u8], wanted: &str) -> bool {
    text.windows(wanted.len().max(1)).any(|part| part == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Ask, Target};

    fn page(url: &str) -> Page {
        match url.parse::<Target>().unwrap().ask() {
            Ask::Page(page) => page.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn why(page: &Page, status: u16, location: Option<&str>) -> String {
        judge(page, status, location).map_or_else(|failure| failure.to_string(), |()| String::new())
    }

    #[test]
    fn any_success_will_do_unless_a_status_is_wanted() {
        let any = page("http://192.0.2.1/");
        assert_eq!(why(&any, 200, None), "");
        assert_eq!(why(&any, 204, None), "");
        assert_eq!(why(&any, 404, None), "status 404");
        assert_eq!(why(&any, 503, None), "status 503");
        let moved = Page { status: Some(301), ..any };
        assert_eq!(why(&moved, 301, Some("/there")), "");
        assert_eq!(why(&moved, 404, None), "status 404 instead of 301");
    }

    #[test]
    fn a_captive_portal_is_recognized_by_what_it_does() {
        let any = page("http://192.0.2.1/");
        assert_eq!(
            why(&any, 302, Some("http://portal/login")),
            "redirected to http://portal/login: a captive portal?"
        );
        assert_eq!(why(&any, 302, None), "redirected to somewhere else: a captive portal?");
        assert_eq!(why(&any, 511, None), "a captive portal wants a login (status 511)");
        let empty = page("http://192.0.2.1/generate_204");
        assert_eq!(why(&empty, 204, None), "");
        assert_eq!(why(&empty, 200, None), "status 200 instead of 204: a captive portal?");
    }

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        assert!(is_in(b"ok", "ok") && is_in(b"all ok\n", "ok") && !is_in(b"o", "ok") && !is_in(b"", "ok"));
    }
}
