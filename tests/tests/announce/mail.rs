//! Mails.

use balance_lab::{Manner, Receiver, ready};
use nix::sys::signal::Signal;

use crate::support::{Scene, receiver_address};

fn config(digest: &str) -> String {
    format!(
        "[mail]\nto = [\"Admin <admin@example.org>\", \"root@localhost\"]\nfrom = \"router@example.org\"\n\
         server = \"smtp://203.0.113.80:8080\"\ndigest = \"{digest}\"\n"
    )
}

/// A scene with a mail server on the internet.
fn scene(digest: &str) -> (Scene, Receiver) {
    let scene = Scene::new(&config(digest));
    let server = Receiver::smtp(scene.lab.internet(), receiver_address()).unwrap();
    (scene, server)
}

/// The lines of a mail that begin so.
fn lines<'a>(mail: &'a str, begin: &str) -> Vec<&'a str> {
    mail.lines().filter(|line| line.starts_with(begin)).collect()
}

#[test]
fn the_first_event_is_mailed_at_once_and_what_follows_comes_together() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene("8s");
    scene.start();
    scene.wait_until("a mail", || server.taken().len() == 1);
    let first = server.taken()[0].clone();
    assert_eq!(lines(&first, "MAIL FROM:"), ["MAIL FROM:<router@example.org>"]);
    assert_eq!(lines(&first, "RCPT TO:"), ["RCPT TO:<admin@example.org>", "RCPT TO:<root@localhost>"]);
    assert_eq!(lines(&first, "From:"), ["From: router@example.org"]);
    assert_eq!(lines(&first, "To:"), ["To: Admin <admin@example.org>, root@localhost"]);
    assert!(lines(&first, "Subject: balance on ")[0].ends_with(" is up"), "{first}");
    assert!(!lines(&first, "Date: ").is_empty() && !lines(&first, "Message-ID: ").is_empty(), "{first}");

    // Less than eight seconds, even here.
    scene.die("CABLE");
    scene.revive("CABLE");
    scene.wait_until("the digest", || server.taken().len() == 2);
    let digest = server.taken()[1].clone();
    let summaries = |mail: &str| -> Vec<String> {
        mail.lines().filter(|line| line.contains(", was ")).map(str::to_owned).collect()
    };
    // Both may have come up in the same moment, or not.
    let all = [summaries(&first), summaries(&digest)];
    assert_eq!(all.concat().len(), 4, "{first}{digest}");
    let [.., down, up] = &all[1][..] else { panic!("{digest}") };
    assert!(down.starts_with("CABLE is down, was up: "), "{digest}");
    assert!(up.starts_with("CABLE is up, was down: "), "{digest}");
    let subject = lines(&digest, "Subject: ")[0];
    let count = format!(": {} changes, ", all[1].len());
    assert!(subject.contains(&count) && subject.contains("CABLE is up"), "{digest}");
    let of_down = all[1].len() - 2;
    assert!(lines(&digest, "  evidence")[of_down].contains("no answer from 203.0.113.1"), "{digest}");
    assert!(lines(&digest, "  consequence")[of_down].contains("6144 buckets moved away"), "{digest}");
    assert_eq!(scene.failed("failed_announcements"), [""; 0]);
}

#[test]
fn with_no_way_out_mail_waits_until_an_isp_is_back() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene("1s");
    scene.start();
    scene.wait_until("mails", || !server.taken().is_empty());
    for isp in ["CABLE", "DSL"] {
        scene.lab.isp(isp).die_silently().unwrap();
    }
    for isp in ["CABLE", "DSL"] {
        scene.lab.wait_state(isp, "down").unwrap();
    }
    scene.revive("DSL");
    let has = |part: &str| server.taken().iter().any(|mail| mail.contains(part));
    scene.wait_until("what happened meanwhile", || {
        has("CABLE is down, was up") && has("DSL is down, was up") && has("DSL is up, was down")
    });
}

#[test]
fn a_mail_server_that_sends_us_away_is_asked_again_and_shown() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene("1s");
    server.set_manner(Manner::Later);
    scene.start();
    let failure = "mail to admin@example.org, root@localhost failed: transient error (451): come back later";
    scene.wait_until("the failure", || scene.failed("failed_announcements") == [failure]);
    scene.die("CABLE");
    scene.goes_by("DSL");
    server.set_manner(Manner::Take);
    scene.revive("CABLE");
    // One that was on its way while CABLE died does not have it yet.
    let has = |part: &str| server.taken().iter().any(|mail| mail.contains(part));
    scene.wait_until("all of it", || has("CABLE is down, was up") && has("DSL is up, was unknown"));
    scene.wait_until("its end", || scene.failed("failed_announcements").is_empty());
}

#[test]
fn what_waits_for_the_next_digest_is_sent_when_the_daemon_ends_and_a_server_that_hangs_does_not_hold_it_up() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene("1h");
    scene.start();
    scene.wait_until("a mail", || server.taken().len() == 1);
    scene.die("CABLE");
    scene.wait_for_events(3);
    scene.daemon.take().unwrap().terminate().unwrap();
    scene.wait_until("the rest", || server.taken().len() == 2);
    assert!(server.taken()[1].contains("CABLE is down, was up"));

    scene.lab.isp("CABLE").revive().unwrap();
    server.set_manner(Manner::Hang);
    let before = server.asked();
    scene.start_anyhow();
    scene.lab.balance_ok(&["down", "DSL"]).unwrap();
    scene.wait_until("it hangs", || server.asked() > before);
    // The lab waits ten seconds for its end, a mail a minute.
    let output = scene.daemon.take().unwrap().terminate().unwrap();
    assert!(output.stderr.contains("not everybody has been told of everything"), "{}", output.stderr);
}

#[test]
fn a_reload_changes_who_gets_mail() {
    if !ready() {
        return;
    }
    let (mut scene, server) = scene("1s");
    scene.configure("");
    scene.start();
    scene.wait_for_events(2);
    scene.configure(&config("1s"));
    scene.daemon().signal(Signal::SIGHUP).unwrap();
    scene.wait_until("the reload", || scene.daemon().stderr().contains("config reloaded"));
    scene.die("CABLE");
    scene.wait_until("a mail", || server.taken().len() == 1);
    assert!(lines(&server.taken()[0], "Subject: ")[0].ends_with("CABLE is down"));
}
