//! The paths of the API: which there are, what they stand for, and how the CLI asks by them.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::{Force, Request};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// How it stands: what `status --json` prints.
    Status,
    /// The same every second, as server-sent events.
    Live,
    /// What has happened.
    Events,
    /// The flows that have carried most.
    Flows,
    /// This description.
    Description,
    /// Metrics for Prometheus.
    Metrics,
    /// [`Request::Quality`].
    Quality,
    /// [`Request::InForce`].
    InForce,
    /// [`Request::Tallies`].
    Tallies,
    /// [`Request::SetWeight`].
    SetWeight,
    /// [`Request::Force`].
    Force,
    /// [`Request::SetUsed`].
    SetUsed,
    /// [`Request::Flush`].
    Flush,
    /// [`Request::Quit`].
    Quit,
}

/// A path, and with which method it is asked for. Those that do not only read change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `PUT` or `POST`.
    pub method: &'static str,
    /// With `{isp}` where the name of an ISP stands.
    pub path: &'static str,
    /// What it leads to.
    pub endpoint: Endpoint,
}

/// All paths.
pub const ROUTES: &[Route] = &[
    get("/v1/status", Endpoint::Status),
    get("/v1/live", Endpoint::Live),
    get("/v1/events", Endpoint::Events),
    get("/v1/flows", Endpoint::Flows),
    get("/v1/openapi.json", Endpoint::Description),
    get("/v1/quality", Endpoint::Quality),
    get("/v1/in-force", Endpoint::InForce),
    get("/v1/tallies", Endpoint::Tallies),
    Route { method: "PUT", path: "/v1/isps/{isp}/weight", endpoint: Endpoint::SetWeight },
    Route { method: "PUT", path: "/v1/isps/{isp}/force", endpoint: Endpoint::Force },
    Route { method: "PUT", path: "/v1/isps/{isp}/used", endpoint: Endpoint::SetUsed },
    Route { method: "POST", path: "/v1/flush", endpoint: Endpoint::Flush },
    Route { method: "POST", path: "/v1/quit", endpoint: Endpoint::Quit },
    get("/metrics", Endpoint::Metrics),
];

/// The description of all this, in OpenAPI 3.1.
pub const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

/// The body of a request for another weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weight {
    weight: u16,
}

/// The body of a request to force an ISP.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: Force,
}

/// The body of a request that says how much of a quota is used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    bytes: u64,
}

/// The body of a request to forget what the fast path has learned.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    isp: Option<String>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) endpoint: Endpoint,
    /// It is to change something.
    pub(super) changes: bool,
    /// The name of the ISP in the path.
    isp: String,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Astray {
    /// There is no such path.
    Path,
    /// There is, but with these methods.
    Method(Vec<&'static str>),
}

const fn get(path: &'static str, endpoint: Endpoint) -> Route {
    Route { method: "GET", path, endpoint }
}

/// What a method and a path ask for.
pub(super) fn find(method: &Method, path: &str) -> Result<Asked, Astray> {
    let wanted = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(isp) = matched(route.path, path) else { continue };
        if route.method == wanted {
            return Ok(Asked { endpoint: route.endpoint, changes: route.method != "GET", isp });
        }
        methods.push(route.method);
    }
    Err(if methods.is_empty() { Astray::Path } else { Astray::Method(methods) })
}

/// The name of the ISP in a path of this pattern, empty where there is none; none if it is another path.
fn matched(pattern: &str, path: &str) -> Option<String> {
    let (mut parts, mut isp) = (path.split('/'), String::new());
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        if wanted == "{isp}" {
            isp = decoded(part)?;
        } else if part != wanted {
            return None;
        }
    }
    parts.next().is_none().then_some(isp)
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

impl Asked {
    /// The request to the daemon that it stands for; none if somebody else can answer. An error says what is wrong with the body.
    pub(super) fn request(&self, body: &[u8]) -> Result<Option<Request>, String> {
        let isp = || self.isp.clone();
        Ok(Some(match self.endpoint {
            Endpoint::Quality => Request::Quality,
            Endpoint::InForce => Request::InForce,
            Endpoint::Tallies => Request::Tallies,
            Endpoint::SetWeight => Request::SetWeight { isp: isp(), weight: parsed::<Weight>(body)?.weight },
            Endpoint::Force => Request::Force { isp: isp(), to: parsed::<To>(body)?.to },
            Endpoint::SetUsed => Request::SetUsed { isp: isp(), bytes: parsed::<Used>(body)?.bytes },
            Endpoint::Flush if body.is_empty() => Request::Flush { isp: None },
            Endpoint::Flush => Request::Flush { isp: parsed::<Of>(body)?.isp },
            Endpoint::Quit => Request::Quit,
            Endpoint::Status
            | Endpoint::Live
            | Endpoint::Events
            | Endpoint::Flows
            | Endpoint::Description
            | Endpoint::Metrics => return Ok(None),
        }))
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body makes no sense: {error}"))
}

/// The value of a key of a query, `None` if it is not there.
pub(super) fn query(query: Option<&str>, key: &str) -> Option<String> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).and_then(|(_, value)| decoded(value))
}

/// Method, path and body of a request to the daemon.
pub(super) fn asked_as(request: &Request) -> serde_json::Result<(&'static str, String, Vec<u8>)> {
    let endpoint = match request {
        Request::Quality => Endpoint::Quality,
        Request::InForce => Endpoint::InForce,
        Request::Tallies => Endpoint::Tallies,
        Request::SetWeight { .. } => Endpoint::SetWeight,
        Request::Force { .. } => Endpoint::Force,
        Request::SetUsed { .. } => Endpoint::SetUsed,
        Request::Flush { .. } => Endpoint::Flush,
        Request::Quit => Endpoint::Quit,
    };
    let (isp, body) = match request {
        Request::SetWeight { isp, weight } => {
            (isp.as_str(), serde_json::to_vec(&Weight { weight: *weight })?)
        }
        Request::Force { isp, to } => (isp.as_str(), serde_json::to_vec(&To { to: *to })?),
        Request::SetUsed { isp, bytes } => (isp.as_str(), serde_json::to_vec(&Used { bytes: *bytes })?),
        Request::Flush { isp } => ("", serde_json::to_vec(&Of { isp: isp.clone() })?),
        _ => ("", Vec::new()),
    };
    let isp = utf8_percent_encode(isp, NON_ALPHANUMERIC).to_string();
    let route = ROUTES.iter().find(|route| route.endpoint == endpoint);
    let (method, path) = route.map_or(("GET", "/"), |route| (route.method, route.path));
    Ok((method, path.replace("{isp}", &isp), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cli_asks_is_what_the_daemon_understands() {
        let name = || "Größe /?#%{isp}".to_owned();
        for request in [
            Request::Quality,
            Request::InForce,
            Request::Tallies,
            Request::SetWeight { isp: name(), weight: 7 },
            Request::Force { isp: name(), to: Force::Auto },
            Request::SetUsed { isp: name(), bytes: u64::MAX },
            Request::Flush { isp: Some(name()) },
            Request::Flush { isp: None },
            Request::Quit,
        ] {
            let (method, path, body) = asked_as(&request).unwrap();
            let asked = find(&method.parse().unwrap(), &path).unwrap();
            assert_eq!(asked.changes, method != "GET");
            assert_eq!(asked.request(&body).unwrap(), Some(request));
        }
    }

    #[test]
    fn a_path_leads_somewhere_only_as_a_whole_and_with_its_method() {
        let find = |method: &str, path: &str| find(&method.parse().unwrap(), path);
        for path in
            ["", "/", "/v1", "/v1/", "/v1/status/", "//v1/status", "/v2/status", "/v1/isps/A", "/v1/isps//x"]
        {
            assert_eq!(find("GET", path), Err(Astray::Path), "{path}");
        }
        assert_eq!(find("GET", "/v1/isps/%ff/weight"), Err(Astray::Path));
        assert_eq!(find("GET", "/v1/isps/A/weight"), Err(Astray::Method(vec!["PUT"])));
        assert_eq!(find("DELETE", "/metrics"), Err(Astray::Method(vec!["GET"])));
        assert!(find("HEAD", "/metrics").is_ok_and(|asked| !asked.changes));
    }

    #[test]
    fn a_body_that_makes_no_sense_is_told() {
        let asked = find(&Method::PUT, "/v1/isps/A/weight").unwrap();
        for body in ["", "7", "{}", r#"{"weight":-1}"#, r#"{"weight":65536}"#, r#"{"weight":1,"more":1}"#] {
            let told = asked.request(body.as_bytes()).unwrap_err();
            assert!(told.starts_with("the body makes no sense: "), "{told}");
        }
        let asked = find(&Method::POST, "/v1/flush").unwrap();
        assert_eq!(asked.request(b""), Ok(Some(Request::Flush { isp: None })));
        assert_eq!(asked.request(b"{}"), Ok(Some(Request::Flush { isp: None })));
        assert!(asked.request(br#"{"name":"A"}"#).is_err());
    }

    #[test]
    fn queries_are_read_by_key() {
        assert_eq!(query(Some("a=1&isp=A%20B&isp=C"), "isp").as_deref(), Some("A B"));
        assert_eq!(query(Some("isp"), "isp"), None);
        assert_eq!(query(None, "isp"), None);
    }

    #[test]
    fn every_path_is_described_and_every_description_has_its_path() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        let mut described: Vec<_> = described.collect();
        let mut routed: Vec<_> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        described.sort();
        routed.sort();
        assert_eq!(described, routed);
    }
}
