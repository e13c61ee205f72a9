//! `top`, driven by keys.

use balance_lab::ready_with;

use crate::status::is_as_before;
use crate::support::{SIZES, comes_to_be_as_kept, open, with_a_flow};

#[test]
fn top_shows_what_is_kept_and_changes_what_is_confirmed() {
    if !ready_with(&["tmux"]) {
        return;
    }
    let (lab, _daemon, _flow) = with_a_flow();
    for size in SIZES {
        let top = open(&lab, size, "top");
        // There are rates.
        top.wait(|screen| {
            screen.contains("CABLE") && screen.contains(|character| ('▁'..='█').contains(&character))
        })
        .unwrap();
        top.press(&["/", "192.168.1.10", "Enter"]).unwrap();
        let is_filtered = |screen: &str| {
            ["with \"192.168.1.10\"", "192.168.1.10:", "u up  d down"]
                .iter()
                .all(|part| screen.contains(part))
        };
        top.wait(is_filtered).unwrap();
        comes_to_be_as_kept("top", size, &top);
        top.press(&["?"]).unwrap();
        top.wait(|screen| screen.contains("its probes decide again")).unwrap();
        top.press(&["x", "q"]).unwrap();
        top.wait(|screen| screen.contains("ended: 0")).unwrap();
        is_as_before(&top);
    }
    let top = open(&lab, (80, 24), "top");
    top.wait(|screen| screen.contains("> CABLE")).unwrap();
    top.press(&["d"]).unwrap();
    top.wait(|screen| screen.contains("Give CABLE no new flows")).unwrap();
    top.press(&["n"]).unwrap();
    top.wait(|screen| screen.contains("nothing was changed")).unwrap();
    assert!(lab.isp_status("CABLE").unwrap()["forced"].is_null());
    top.press(&["d", "y"]).unwrap();
    top.wait(|screen| screen.contains("DN forced")).unwrap();
    assert_eq!(lab.isp_status("CABLE").unwrap()["forced"], "down");
    top.press(&["a", "y", "w", "7", "Enter", "y"]).unwrap();
    top.wait(|screen| screen.contains("7=100%")).unwrap();
    assert_eq!(lab.isp_status("CABLE").unwrap()["weight"], 7);
    // What balances goes away while it is watched.
    lab.balance_ok(&["stop"]).unwrap();
    top.wait(|screen| screen.contains("does not balance here")).unwrap();
    top.press(&["C-c"]).unwrap();
    top.wait(|screen| screen.contains("ended: 0")).unwrap();
    is_as_before(&top);
    let piped = lab.balance(&["top"]).unwrap();
    assert_eq!(piped.status.code(), Some(1), "{piped:?}");
    assert!(piped.stderr.contains("status --json"), "{piped:?}");
}
