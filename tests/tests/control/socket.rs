//! The control socket.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use balance_lab::http::{Query, Reply};
use balance_lab::{Family, Lab, Transport, open_flows, ready, wait_until};
use nix::errno::Errno;
use serde_json::{Value, json};

const SOCKET: &str = "/run/balance/main/control.sock";
/// Somebody who is neither root nor in a group that matters; and a group of every Debian.
const NOBODY: u32 = 65_534;
const USERS: u32 = 100;

fn ask(lab: &Lab, query: Query<'_>) -> Reply {
    query.at_socket(lab.router(), SOCKET).unwrap()
}

/// The same as somebody else, who is also in these groups.
fn ask_as(lab: &Lab, groups: &[u32], query: Query<'_>) -> io::Result<Reply> {
    lab.router().run(|| {
        become_nobody(groups)?;
        query.send(UnixStream::connect(SOCKET)?)
    })
}

/// Changes the calling thread alone, which libc's functions do not.
fn become_nobody(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many group ids as there are, and the other arguments are numbers.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY),
            libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY),
        ]
    };
    results.into_iter().try_for_each(|result| Errno::result(result).map(drop)).map_err(Into::into)
}

fn with_control(lab: &Lab, control: &str) -> String {
    format!("{}\n[control]\ngroup = \"users\"\n{control}\n", lab.config())
}

/// The keys of what was answered are those of the description.
fn is_as_described(description: &Value, schema: &str, answered: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let described = keys(&description["components"]["schemas"][schema]["properties"]);
    assert_eq!(keys(answered), described, "{schema}");
}

#[test]
fn everything_that_is_described_can_be_read_and_changed() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let get = |path: &str| ask(&lab, Query::get(path));
    let description = get("/v1/openapi.json").json().unwrap();
    for (path, methods) in description["paths"].as_object().unwrap() {
        // That one does not end.
        if methods.get("get").is_some() && path != "/v1/live" {
            assert_eq!(get(path).status, 200, "{path}");
        }
    }
    let (status, printed) = (get("/v1/status").json().unwrap(), lab.status().unwrap());
    for key in ["name", "device", "state", "weight", "share", "gateway", "since"] {
        assert_eq!(status["isps"][0][key], printed["isps"][0][key], "{key}");
    }
    assert_eq!((&status["policies"], &status["daemon"]), (&printed["policies"], &printed["daemon"]));
    is_as_described(&description, "Report", &status);
    is_as_described(&description, "Isp", &status["isps"][0]);
    let events = get("/v1/events?isp=cable&number=1").json().unwrap();
    assert_eq!((events.as_array().unwrap().len(), &events[0]["isp"]), (1, &"CABLE".into()));
    is_as_described(&description, "Event", &events[0]);
    assert_eq!(get("/v1/events?number=x").status, 400);
    lab.router().sysctls(&[("net.netfilter.nf_conntrack_acct", "1")]).unwrap();
    let asked = open_flows(lab.lan(), 5, Transport::Tcp, Family::V4).unwrap();
    // It was asked before, and looks again a while later.
    let mut flows = Value::Null;
    wait_until(Duration::from_secs(10), "flows with bytes", || {
        flows = get("/v1/flows?number=2").json().unwrap();
        flows["flows"][1]["bytes"].is_u64()
    })
    .unwrap();
    is_as_described(&description, "Flows", &flows);
    is_as_described(&description, "Flow", &flows["flows"][0]);
    let bytes = |place: usize| flows["flows"][place]["bytes"].as_u64().unwrap();
    assert!(bytes(0) >= bytes(1) && flows["flows"][2].is_null() && flows["counted"] == true, "{flows:#}");
    drop(asked);

    let put = |path: &str, body: &str| ask(&lab, Query::new("PUT", path, body));
    assert_eq!(
        put("/v1/isps/cable/weight", r#"{"weight":1}"#).json().unwrap(),
        json!({ "response": "done" })
    );
    let status = get("/v1/status").json().unwrap();
    assert_eq!((&status["isps"][0]["weight"], &status["isps"][0]["share"]), (&1.into(), &0.5.into()));
    assert_eq!(put("/v1/isps/DSL/force", r#"{"to":"down"}"#).status, 200);
    assert_eq!(get("/v1/status").json().unwrap()["isps"][1]["share"], 0.0);
    let tallies = get("/v1/tallies").json().unwrap();
    assert_eq!(tallies["isps"]["DSL"]["changes"]["down"], 1, "{tallies:#}");
    assert_eq!(put("/v1/isps/DSL/force", r#"{"to":"auto"}"#).status, 200);

    let missing = put("/v1/isps/LTE/weight", r#"{"weight":1}"#);
    assert_eq!((missing.status, &missing.json().unwrap()["isps"]), (404, &json!(["CABLE", "DSL"])));
    assert_eq!(put("/v1/isps/DSL/weight", r#"{"weight":0}"#).status, 400);
    assert_eq!(put("/v1/isps/DSL/weight", "{").status, 400);
    assert_eq!(put("/v1/isps/DSL/weight", &"x".repeat(5000)).status, 413);
    let wrong = ask(&lab, Query::new("POST", "/v1/status", ""));
    assert!(wrong.status == 405 && wrong.head.contains("\r\nallow: get\r\n"), "{}", wrong.head);
    assert_eq!(get("/v2/status").status, 404);
    assert_eq!(ask(&lab, Query::new("POST", "/v1/quit", "")).status, 200);
}

#[test]
fn who_may_not_change_reads_at_most_and_keeps_nobody_from_anything() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&with_control(&lab, "readable_by = \"all\"")).unwrap();
    let daemon = lab.start_up().unwrap();
    let weight = |weight: &'static str| Query::new("PUT", "/v1/isps/DSL/weight", weight);
    assert_eq!(ask_as(&lab, &[], Query::get("/v1/status")).unwrap().status, 200);
    let refused = ask_as(&lab, &[], weight(r#"{"weight":2}"#)).unwrap();
    assert!(refused.status == 403 && refused.body.contains("needs root"), "{}", refused.body);
    assert_eq!(ask_as(&lab, &[USERS], weight(r#"{"weight":5}"#)).unwrap().status, 200);
    assert_eq!(lab.isp_status("DSL").unwrap()["weight"], 5);

    // As many as there are, and more: some say nothing, others half of a request, others do not read.
    let stuck = || -> io::Result<Vec<UnixStream>> {
        become_nobody(&[])?;
        let one = |number: usize| {
            let mut stream = UnixStream::connect(SOCKET)?;
            let said: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /v1/status HTTP/1.1\r\nHo",
                _ => b"GET /v1/live HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            // Those for whom there is no room are sent away.
            let _ = stream.write_all(said);
            Ok(stream)
        };
        (0..100).map(one).collect()
    };
    let stuck = lab.router().run(stuck).unwrap();
    let before = Instant::now();
    assert_eq!(ask(&lab, Query::get("/v1/status")).status, 200);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    assert!(ask_as(&lab, &[], Query::get("/v1/status")).is_err());
    drop(stuck);

    daemon.reload(&lab, &with_control(&lab, "")).unwrap();
    let closed = ask_as(&lab, &[], Query::get("/v1/status")).unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(ask_as(&lab, &[USERS], Query::get("/v1/status")).unwrap().status, 200);
}
