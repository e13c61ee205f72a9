//! Chromium without a screen on a host, told what to do by WebDriver (W3C) with what chromedriver adds to it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::http::Query;
use crate::{Child, Host, wait_until};

/// Where chromedriver listens: hosts have networks of their own.
const PORT: u16 = 9515;
/// The host's own, as all of its `/run`.
const FOLDER: &str = "/run/browser";
/// How long starting may take on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A browser with one page, until it is dropped.
pub struct Browser<'a> {
    host: &'a Host,
    session: String,
    _driver: Child,
}

impl<'a> Browser<'a> {
    /// The programs that it takes.
    pub const PROGRAMS: &'static [&'static str] = &["chromium", "chromedriver"];

    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &'a Host) -> anyhow::Result<Self> {
        host.run(|| std::fs::create_dir_all(FOLDER))?;
        let mut command = host.command("chromedriver");
        command.arg(format!("--port={PORT}")).env("HOME", FOLDER).env("TMPDIR", FOLDER);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = host.spawn(command)?;
        let is_there = || Query::get("/status").at_port(host, PORT).is_ok_and(|reply| reply.status == 200);
        wait_until(TIMEOUT, "chromedriver", is_there)?;
        // By a pipe, so that the browser ends when chromedriver does, however that happens.
        let arguments = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,1000",
            "--user-data-dir=/run/browser/profile",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let mut browser = Self { host, session: String::new(), _driver: driver };
        let made = browser.command("POST", "/session", &wanted)?;
        let id = made.get("sessionId").and_then(Value::as_str).context("no session")?;
        browser.session = format!("/session/{id}");
        Ok(browser)
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When it cannot be loaded; likewise below, when the browser does not do it.
    pub fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// The value of an expression of JavaScript on the page.
    ///
    /// # Errors
    /// See [`Browser::open`].
    pub fn value(&self, expression: &str) -> anyhow::Result<Value> {
        self.post("/execute/sync", &json!({ "script": format!("return ({expression});"), "args": [] }))
    }

    /// Waits until an expression of JavaScript is true.
    ///
    /// # Errors
    /// When it is not within the time, with what the page says.
    pub fn wait(&self, timeout: Duration, expression: &str) -> anyhow::Result<()> {
        let waited =
            wait_until(timeout, expression, || self.value(expression).is_ok_and(|value| value == true));
        waited.with_context(|| format!("the page says: {:?}", self.value("document.body.innerText")))
    }

    /// Types into the element that has the focus, as a keyboard does.
    ///
    /// # Errors
    /// See [`Browser::open`].
    pub fn keys(&self, text: &str) -> anyhow::Result<()> {
        let press = |key: char| {
            [
                json!({ "type": "keyDown", "value": key.to_string() }),
                json!({ "type": "keyUp", "value": key.to_string() }),
            ]
        };
        let keys: Vec<Value> = text.chars().flat_map(press).collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] }))
            .map(drop)
    }

    /// Does what the `DevTools` protocol of Chromium calls so.
    ///
    /// # Errors
    /// See [`Browser::open`].
    pub fn devtools(&self, command: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// What was written to the console since it was asked last.
    ///
    /// # Errors
    /// See [`Browser::open`].
    pub fn console(&self) -> anyhow::Result<Vec<String>> {
        let lines = self.post("/se/log", &json!({ "type": "browser" }))?;
        Ok(lines.as_array().into_iter().flatten().map(ToString::to_string).collect())
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.command("POST", &format!("{}{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = body.to_string();
        let query = Query { headers: &["Content-Type: application/json"], ..Query::new(method, path, &body) };
        let reply = query.at_port(self.host, PORT).with_context(|| format!("{method} {path}"))?;
        ensure!(reply.status == 200, "{method} {path} was answered {}: {}", reply.status, reply.body);
        Ok(reply.json()?.get("value").cloned().unwrap_or_default())
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.command("DELETE", &self.session, &json!({}));
    }
}
