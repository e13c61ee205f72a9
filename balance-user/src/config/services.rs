//! Reading `[control]`, `[metrics]` and `[web]`: who may ask the daemon, and where it listens besides its socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::check;
use super::error::Problem;
use super::reader::{Item, Table};

const CONTROL_KEYS: &[&str] = &["group", "readable_by"];
const METRICS_KEYS: &[&str] = &["listen"];
const WEB_KEYS: &[&str] = &["listen", "hosts", "token_file"];

/// Who may use the control socket. Root may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The group whose members may read and change everything, if there is such a group.
    pub group: String,
    /// Who else may read.
    pub readable_by: ReadableBy,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { group: "balance".to_owned(), readable_by: ReadableBy::Group }
    }
}

/// Who may read what the control socket tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadableBy {
    /// Those who may change it.
    #[default]
    Group,
    /// Every user of the machine.
    All,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where they are served, besides the control socket.
    pub listen: Option<SocketAddr>,
}

/// The web page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// Where it is served; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// Names by which browsers may ask for it, besides `localhost` and addresses; in lower case.
    pub hosts: Vec<String>,
    /// The file with the token that is needed to change anything; none: one beside the history of events.
    pub token_file: Option<PathBuf>,
}

/// Who may use the control socket.
pub(super) fn control(top: &Table<'_>) -> Result<ControlConfig, Problem> {
    let default = ControlConfig::default();
    let Some(control) = top.get("control") else { return Ok(default) };
    let control = control.table(CONTROL_KEYS)?;
    Ok(ControlConfig {
        group: control.get("group").map_or(Ok(default.group), |item| item.text(group))?,
        readable_by: control
            .choice("readable_by", &[("group", ReadableBy::Group), ("all", ReadableBy::All)])?,
    })
}

/// Where metrics are served.
pub(super) fn metrics(top: &Table<'_>) -> Result<MetricsConfig, Problem> {
    let Some(metrics) = top.get("metrics") else { return Ok(MetricsConfig::default()) };
    Ok(MetricsConfig { listen: listen(&metrics.table(METRICS_KEYS)?, "127.0.0.1:9686")? })
}

/// Where the page is served.
pub(super) fn web(top: &Table<'_>, metrics: &MetricsConfig) -> Result<WebConfig, Problem> {
    let Some(web) = top.get("web") else { return Ok(WebConfig::default()) };
    let web = web.table(WEB_KEYS)?;
    let listen = listen(&web, "127.0.0.1:8686")?;
    if listen.is_some() && listen == metrics.listen {
        return Err(web.problem("listen is that of [metrics] already: take another port"));
    }
    let hosts = web.get("hosts").map_or(Ok(Vec::new()), |item| item.one_or_more())?;
    let token_file = web.get("token_file").map(|item| {
        item.text(|text| {
            check::folder(text).map_err(|_| "token_file must be a path from the root".to_owned())
        })
    });
    Ok(WebConfig {
        listen,
        hosts: hosts.iter().map(|item| item.text(host)).collect::<Result<_, _>>()?,
        token_file: token_file.transpose()?,
    })
}

fn listen(table: &Table<'_>, example: &str) -> Result<Option<SocketAddr>, Problem> {
    let read = |item: Item<'_>| {
        item.text(|text| {
            let address: Option<SocketAddr> = text.parse().ok();
            address
                .filter(|address| address.port() != 0)
                .ok_or_else(|| format!("listen must be an address and a port, such as \"{example}\""))
        })
    };
    table.get("listen").map(read).transpose()
}

fn group(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !text.is_empty() && text.len() <= 32 && text.bytes().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("group must be the name of a group, such as \"balance\"".to_owned())
    }
}

fn host(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(is_good) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("hosts must be names without a port, such as \"router.lan\"".to_owned())
    }
}
