//! The commands that say something and end, and `status --watch`.

use balance_lab::{Lab, Terminal, ready_with};

use crate::support::{SIZES, ended, is_as_kept, open, with_a_flow};

/// As somebody who comes from Net::ISP::Balance has it.
const OLD_CONFIG: &str = "\
CABLE   cable0   isp   203.0.113.1   3
LAN     lan0     lan
mode=balanced
warn_email=root@localhost
";

#[test]
fn each_command_has_the_screen_that_is_kept() {
    if !ready_with(&["tmux"]) {
        return;
    }
    let (lab, _daemon, _flow) = with_a_flow();
    lab.router().feed("tee", &["/run/balance.conf"], OLD_CONFIG).unwrap();
    for size in SIZES {
        for (name, words) in [
            ("status", "status"),
            ("status-short", "status --short"),
            ("status-check", "status --check"),
            ("flows", "flows --source 192.168.1.10"),
            ("events", "events"),
            ("explain", "explain --from 192.168.1.10 --to 203.0.113.1 --dport 443"),
            ("check", "check /run/balance.toml"),
            ("import", "import /run/balance.conf"),
            ("run-dry", "run --config /run/balance.toml --dry-run"),
            ("run-again", "run --config /run/balance.toml"),
        ] {
            is_as_kept(name, size, &ended(&lab, size, words));
        }
    }
    for size in SIZES {
        // So that there is nothing left to drop.
        lab.balance_ok(&["flush"]).unwrap();
        for (name, words) in [
            ("set-weight", "set-weight CABLE 3"),
            ("set-weight-unknown", "set-weight FIBRE 3"),
            ("down", "down CABLE"),
            ("up", "up CABLE"),
            ("auto", "auto CABLE"),
            ("flush", "flush"),
            ("quota", "quota CABLE --set 1GB"),
        ] {
            is_as_kept(name, size, &ended(&lab, size, words));
        }
    }
    colours_are_for_terminals(&lab);
    watching_is_drawn_anew_until_a_key(&lab);
    exit_codes_are_for_scripts(&lab);
    is_as_kept("stop", (80, 24), &ended(&lab, (80, 24), "stop"));
    is_as_kept("stop-again", (80, 24), &ended(&lab, (80, 24), "stop"));
}

fn colours_are_for_terminals(lab: &Lab) {
    let router = lab.router();
    let binary = balance_lab::binary().unwrap();
    let colour = "\u{1b}[32mup\u{1b}[0m";
    for (words, is_colourful) in [
        ("status", true),
        ("status --color never", false),
        ("status --color always | cat", true),
        ("status | cat", false),
    ] {
        for (variable, forbids) in [("", false), ("NO_COLOR=1", true)] {
            // As `script` does: what the terminal gets.
            let command = format!("TERM=xterm {variable} {} {words}", binary.display());
            let output = router.sh(&format!("script -qec '{command}' /dev/null < /dev/null")).unwrap();
            let expected = is_colourful && (!forbids || words.contains("always"));
            assert_eq!(output.contains(colour), expected, "{command}: {output:?}");
        }
    }
}

fn watching_is_drawn_anew_until_a_key(lab: &Lab) {
    for key in ["q", "C-c", "Escape"] {
        let terminal = open(lab, (80, 24), "status --watch 0.1");
        terminal.wait(|screen| screen.contains("CABLE  cable0  up")).unwrap();
        if key == "q" {
            lab.balance_ok(&["down", "CABLE"]).unwrap();
            terminal.wait(|screen| screen.contains("up (forced down)")).unwrap();
            lab.balance_ok(&["auto", "CABLE"]).unwrap();
        }
        terminal.press(&[key]).unwrap();
        let screen = terminal.wait(|screen| screen.contains("ended: 0")).unwrap();
        assert!(!screen.contains("CABLE"), "what was there before is back: {screen}");
        is_as_before(&terminal);
    }
}

/// What is typed is shown, and lines are lines.
pub(crate) fn is_as_before(terminal: &Terminal<'_>) {
    terminal.press(&["echoed", "Enter"]).unwrap();
    terminal.wait(|screen| screen.matches("echoed\n").count() == 2).unwrap();
}

fn exit_codes_are_for_scripts(lab: &Lab) {
    let check = |instance: &str| {
        let output = lab.balance(&["status", "--check", "--instance", instance]).unwrap();
        (output.status.code(), output.stdout)
    };
    assert_eq!(check("main"), (Some(0), "1 of 1 ISPs are up\n".to_owned()));
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    assert_eq!(check("main"), (Some(2), "none of 1 ISPs is up: CABLE is forced down\n".to_owned()));
    let (code, text) = check("other");
    assert_eq!(code, Some(3), "{text}");
}
