//! The webhook.

use balance_lab::{Manner, Receiver, ready};
use serde_json::Value;

use crate::support::{Scene, receiver_address, states, text};

const CONFIG: &str = "[webhook]\nurl = \"http://203.0.113.80:8080/hook?key=1\"\ntimeout = \"1s\"\n\
                      headers = { Authorization = \"Bearer secret\" }\n";

/// A scene with a web server on the internet.
fn scene() -> (Scene, Receiver) {
    let scene = Scene::new(CONFIG);
    let server = Receiver::http(scene.lab.internet(), receiver_address()).unwrap();
    (scene, server)
}

/// The JSON of what was posted.
fn posted(server: &Receiver) -> Vec<Value> {
    let body = |request: &String| serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    server.taken().iter().map(body).collect()
}

#[test]
fn each_event_is_posted_as_json_in_order() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene();
    scene.start();
    scene.wait_until("two posts", || posted(&server).len() == 2);
    scene.die("CABLE");
    scene.wait_until("a post", || posted(&server).len() == 3);
    scene.revive("CABLE");
    scene.wait_until("a post", || posted(&server).len() == 4);
    let events = posted(&server);
    assert_eq!(states(&events)[2..], ["CABLE down", "CABLE up"]);
    let down = &events[2];
    let head = server.taken()[2].split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
    assert!(head.starts_with("post /hook?key=1 http/1.1\r\n"), "{head}");
    for header in
        ["host: 203.0.113.80:8080", "content-type: application/json", "authorization: bearer secret"]
    {
        assert!(head.contains(&format!("\r\n{header}")), "no {header} in {head}");
    }
    assert_eq!(
        (text(down, "instance"), text(down, "device"), text(down, "previous")),
        ("main", "cable0", "up")
    );
    assert!(text(down, "evidence").contains("no answer from 203.0.113.1"), "{down:#}");
    assert!(text(down, "text").starts_with("CABLE is down, was up: "), "{down:#}");
    assert_eq!(down["consequence"]["buckets_lost"], 6144);
    assert_eq!(events[3]["consequence"]["buckets_gained"], 6144);
    assert_eq!(down["probes"]["source"], "100.64.1.2");
    // The same is in the history.
    let mut down = down.clone();
    down.as_object_mut().unwrap().remove("text");
    assert!(scene.wait_for_events(4).contains(&down));
    assert_eq!(scene.failed("failed_announcements"), [""; 0]);
}

#[test]
fn a_receiver_that_hangs_or_fails_delays_nothing_and_gets_everything_in_the_end() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene();
    server.set_manner(Manner::Hang);
    scene.start();
    scene.wait_until("a post", || server.asked() > 0);
    let hangs = "webhook http://203.0.113.80:8080 failed: no answer within 1s";
    scene.wait_until("the failure", || scene.failed("failed_announcements") == [hangs]);
    assert!(scene.lab.balance_ok(&["status"]).unwrap().contains(hangs));
    assert!(scene.daemon().stderr().contains(hangs));
    // Now and while it hangs:
    scene.die("CABLE");
    scene.goes_by("DSL");
    server.set_manner(Manner::Later);
    let later = "webhook http://203.0.113.80:8080 failed: answered 503 Service Unavailable";
    scene.wait_until("the other failure", || scene.failed("failed_announcements") == [later]);
    assert_eq!(posted(&server), [Value::Null; 0]);
    server.set_manner(Manner::Take);
    scene.revive("CABLE");
    scene.wait_until("all posts", || posted(&server).len() == 4);
    assert_eq!(states(&posted(&server))[2..], ["CABLE down", "CABLE up"]);
    scene.wait_until("its end", || scene.failed("failed_announcements").is_empty());
}

#[test]
fn what_is_refused_for_good_is_not_tried_again() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene();
    server.set_manner(Manner::Refuse);
    scene.start();
    let refused =
        "webhook http://203.0.113.80:8080 failed: answered 400 Bad Request, so it is not tried again";
    scene.wait_until("the failure", || scene.failed("failed_announcements") == [refused]);
    scene.wait_until("two posts", || server.asked() == 2);
    server.set_manner(Manner::Take);
    scene.die("CABLE");
    scene.wait_until("a post", || posted(&server).len() == 1);
    assert_eq!(states(&posted(&server)), ["CABLE down"]);
    assert_eq!(server.asked(), 3);
}
