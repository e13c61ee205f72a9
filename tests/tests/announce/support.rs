//! A lab whose daemon announces.

use std::net::SocketAddr;
use std::time::Duration;

use balance_lab::{Daemon, Family, Flow, Lab, Transport, wait_until};
use serde_json::Value;

/// How long anything may take that is not meant to.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// The router's own, as all of its `/run`.
pub(crate) const SCRIPTS: &str = "/run/scripts";

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) daemon: Option<Daemon>,
}

impl Scene {
    /// ISPs that are back soon, and these sections of the config. Nothing runs yet.
    pub(crate) fn new(sections: &str) -> Self {
        let lab = Lab::new().unwrap();
        let scene = Self { lab, daemon: None };
        scene.configure(sections);
        scene
    }

    pub(crate) fn configure(&self, sections: &str) {
        let monitor = "[monitor]\nup_after = \"300ms\"\nflap_window = \"10ms\"";
        let config = format!("{}\n{monitor}\n{sections}\n", self.lab.config());
        self.lab.write_config(&config).unwrap();
    }

    /// Starts the daemon and waits until all ISPs are up.
    pub(crate) fn start(&mut self) -> &Daemon {
        self.daemon.insert(self.lab.start_up().unwrap())
    }

    /// Starts the daemon, whatever the state of the ISPs.
    pub(crate) fn start_anyhow(&mut self) {
        self.daemon = Some(self.lab.start(&[]).unwrap());
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    pub(crate) fn die(&self, isp: &str) {
        self.lab.isp(isp).die_silently().unwrap();
        self.lab.wait_state(isp, "down").unwrap();
    }

    pub(crate) fn revive(&self, isp: &str) {
        self.lab.isp(isp).revive().unwrap();
        self.lab.wait_up(isp).unwrap();
    }

    /// A new flow is answered, and goes by this ISP.
    pub(crate) fn goes_by(&self, isp: &str) {
        let mut flow = Flow::open(self.lab.lan(), Transport::Tcp, Family::V4, SOON).unwrap();
        assert_eq!(flow.ask().unwrap(), self.lab.isp(isp).address(Family::V4));
    }

    /// Puts a script into the folder of scripts.
    pub(crate) fn script(&self, name: &str, text: &str) {
        self.lab.router().script(&format!("{SCRIPTS}/{name}"), text).unwrap();
    }

    /// A file of the router; empty if there is none.
    pub(crate) fn file(&self, path: &str) -> String {
        self.lab.router().run(|| std::fs::read_to_string(path)).unwrap_or_default()
    }

    /// Waits until a file has so many lines, and returns them.
    pub(crate) fn wait_for_lines(&self, path: &str, count: usize) -> Vec<String> {
        wait_until(SOON, &format!("{count} lines"), || self.file(path).lines().count() >= count)
            .unwrap_or_else(|error| panic!("{error:#}: {}", self.file(path)));
        self.file(path).lines().map(str::to_owned).collect()
    }

    /// What `events --json` says.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.lab.balance_ok(&["events", "--json"]).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until there are so many events, and returns them.
    pub(crate) fn wait_for_events(&self, count: usize) -> Vec<Value> {
        wait_until(SOON, &format!("{count} events"), || self.events().len() >= count)
            .unwrap_or_else(|error| panic!("{error:#}: {:#?}", self.events()));
        self.events()
    }

    /// Lines of `status --json` about failures.
    pub(crate) fn failed(&self, what: &str) -> Vec<String> {
        let status = self.lab.status().unwrap();
        let lines = status[what].as_array().unwrap().iter();
        lines.map(|line| line.as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        wait_until(SOON, what, condition).unwrap_or_else(|error| {
            panic!(
                "{error:#}; the daemon said:\n{}",
                self.daemon.as_ref().map_or_else(String::new, Daemon::stderr)
            )
        });
    }
}

/// The ISP and the state of events.
pub(crate) fn states(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", text(event, "isp"), text(event, "state"))).collect()
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value:#}"))
}

/// An address of the internet host that nobody else uses.
pub(crate) fn receiver_address() -> SocketAddr {
    ([203, 0, 113, 80], 8080).into()
}
