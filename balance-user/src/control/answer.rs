//! Answering requests, whoever asks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request as HttpRequest, Response as HttpResponse, StatusCode};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::api::{self, Asked, Astray, DESCRIPTION, Endpoint};
use super::live::Live;
use super::observer::Observer;
use super::peer::Rights;
use super::server::Settings;
use super::{Request, Response};
use crate::announce::history;
use crate::metrics;
use crate::web::{self, Guard, Seen};

/// More than the longest body of a request.
const MAX_BODY: usize = 4096;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);
/// So many events are told unless somebody wants another number.
const EVENTS: usize = 100;
/// Likewise so many flows.
const FLOWS: usize = 20;

const NOT_ALLOWED: &str = "this needs root, the group of [control], or on the web page its token";

/// What an answer consists of.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub(crate) type Answer = HttpResponse<Body>;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Visitor {
    /// A process of this machine, who may do so much.
    Local(Rights),
    /// Whoever reads metrics by TCP.
    Scraper,
    /// Whoever opens the page.
    Browser(Arc<Guard>),
}

/// Answers.
pub(super) struct Desk {
    observer: Arc<Observer>,
    live: Arc<Live>,
    settings: watch::Receiver<Settings>,
}

impl Desk {
    pub(super) fn new(observer: Arc<Observer>, settings: watch::Receiver<Settings>) -> Self {
        Self { live: Arc::new(Live::new(Arc::clone(&observer))), observer, settings }
    }

    /// Returns when the daemon ends.
    pub(super) async fn closing(&self) {
        let mut settings = self.settings.clone();
        while settings.changed().await.is_ok() {}
    }

    /// The answer to a request.
    pub(super) async fn answer(&self, request: HttpRequest<Incoming>, visitor: &Visitor) -> Answer {
        match visitor {
            Visitor::Local(rights) => self.answer_to(request, *rights).await,
            Visitor::Scraper if request.uri().path() == "/metrics" => {
                self.answer_to(request, Rights::Read).await
            }
            Visitor::Scraper => error(StatusCode::NOT_FOUND, "here is only /metrics"),
            Visitor::Browser(guard) => web::guarded(self.answer_to_browser(request, guard).await),
        }
    }

    async fn answer_to_browser(&self, request: HttpRequest<Incoming>, guard: &Guard) -> Answer {
        let rights = match guard.look(request.headers()) {
            Seen::Stranger => {
                return error(StatusCode::MISDIRECTED_REQUEST, "this name is not in `hosts` of [web]");
            }
            Seen::WrongToken => return error(StatusCode::UNAUTHORIZED, "the token is wrong"),
            Seen::Guest => Rights::Read,
            Seen::Owner => Rights::Change,
        };
        match web::file(request.uri().path()) {
            Some(file) if request.method() == Method::GET => {
                answer(StatusCode::OK, file.content_type, file.content)
            }
            _ => self.answer_to(request, rights).await,
        }
    }

    async fn answer_to(&self, request: HttpRequest<Incoming>, rights: Rights) -> Answer {
        let asked = match api::find(request.method(), request.uri().path()) {
            Ok(asked) => asked,
            Err(Astray::Path) => return error(StatusCode::NOT_FOUND, "there is no such path"),
            Err(Astray::Method(methods)) => {
                let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
                if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
                    answer.headers_mut().insert(ALLOW, methods);
                }
                return answer;
            }
        };
        if rights < needed(&asked) {
            return error(StatusCode::FORBIDDEN, NOT_ALLOWED);
        }
        let query = request.uri().query().map(str::to_owned);
        let body = match body_of(request).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        match asked.request(&body) {
            Ok(Some(request)) => self.ask(request, asked.changes).await,
            Ok(None) => self.look(asked.endpoint, query.as_deref()).await,
            Err(message) => error(StatusCode::BAD_REQUEST, &message),
        }
    }

    /// What only the daemon can answer.
    async fn ask(&self, request: Request, changes: bool) -> Answer {
        let response = self.observer.ask(request).await;
        if changes {
            self.observer.look_again().await;
        }
        match response {
            Ok(response) => json(status_of(&response), &response),
            Err(problem) => error(StatusCode::SERVICE_UNAVAILABLE, &format!("{problem:#}")),
        }
    }

    /// What anybody can see.
    async fn look(&self, endpoint: Endpoint, query: Option<&str>) -> Answer {
        let seen = match endpoint {
            Endpoint::Description => Ok(answer(StatusCode::OK, "application/json", DESCRIPTION)),
            Endpoint::Events => self.events(query).await,
            Endpoint::Flows => self.flows(query).await,
            Endpoint::Metrics => {
                self.observer.metrics().await.map(|text| answer(StatusCode::OK, metrics::CONTENT_TYPE, text))
            }
            Endpoint::Live => Ok(stream(self.live.body().await)),
            _ => self.observer.report().await.map(|report| json(StatusCode::OK, &*report)),
        };
        seen.unwrap_or_else(|problem| error(StatusCode::SERVICE_UNAVAILABLE, &format!("{problem:#}")))
    }

    async fn flows(&self, query: Option<&str>) -> anyhow::Result<Answer> {
        let Some(number) = number_of(query, FLOWS) else { return Ok(not_a_number()) };
        Ok(json(StatusCode::OK, &self.observer.biggest_flows().await?.first(number)))
    }

    async fn events(&self, query: Option<&str>) -> anyhow::Result<Answer> {
        let Some(number) = number_of(query, EVENTS) else { return Ok(not_a_number()) };
        let isp = api::query(query, "isp");
        let folders = history::folders(self.observer.instance());
        let mut events = spawn_blocking(move || history::read(&folders)).await?;
        events.retain(|event| isp.as_ref().is_none_or(|isp| event.change.isp.eq_ignore_ascii_case(isp)));
        let latest = events.split_off(events.len().saturating_sub(number));
        Ok(json(StatusCode::OK, &latest))
    }
}

/// How many are asked for; none if that makes no sense.
fn number_of(query: Option<&str>, usual: usize) -> Option<usize> {
    api::query(query, "number").map_or(Some(usual), |number| number.parse().ok())
}

fn not_a_number() -> Answer {
    error(StatusCode::BAD_REQUEST, "number is not a number")
}

/// What one must be allowed to do.
fn needed(asked: &Asked) -> Rights {
    if asked.changes { Rights::Change } else { Rights::Read }
}

/// The body of a request, or what is wrong with it.
async fn body_of(request: HttpRequest<Incoming>) -> Result<Bytes, Answer> {
    match timeout(BODY_TIME, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or cut off")),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body does not come")),
    }
}

fn status_of(response: &Response) -> StatusCode {
    match response {
        Response::NoSuchIsp { .. } => StatusCode::NOT_FOUND,
        Response::Error { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => answer(status, "application/json", text),
        Err(problem) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", problem.to_string())
        }
    }
}

/// That something went wrong.
fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &Response::Error { message: message.to_owned() })
}

/// An answer that goes on until one of both ends leaves.
fn stream(body: Body) -> Answer {
    let mut answer = answer(StatusCode::OK, "text/event-stream", Bytes::new());
    *answer.body_mut() = body;
    answer
}

/// An answer of this type.
pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = HttpResponse::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
