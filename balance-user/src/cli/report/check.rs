//! The report for scripts that only ask whether all is well.

use super::{Forced, Isp, Report};

/// The exit code (0: all ISPs are up, 1: some are not, 2: none is), and why in a line. Up is what can be used: a standby is, and one
/// that works badly. One that somebody has forced down is not.
#[must_use]
pub fn check(report: &Report) -> (u8, String) {
    let is_up = |isp: &&Isp| isp.state.is_usable() && isp.forced != Some(Forced::Down);
    let (up, others): (Vec<_>, Vec<_>) = report.isps.iter().partition(is_up);
    let (code, verdict) = match (up.len(), others.len()) {
        (0, _) => (2, format!("none of {} ISPs is up", others.len())),
        (up, 0) => (0, format!("{up} of {up} ISPs are up")),
        (up, others) => (1, format!("{up} of {} ISPs are up", up + others)),
    };
    let others: Vec<_> = others.iter().map(|isp| format!("{} is {}", isp.name, why(isp))).collect();
    let separator = if others.is_empty() { "" } else { ": " };
    let stale = if report.daemon.running { "" } else { "; the daemon is not running" };
    (code, format!("{verdict}{separator}{}{stale}\n", others.join(", ")))
}

fn why(isp: &Isp) -> String {
    if isp.forced == Some(Forced::Down) { "forced down".to_owned() } else { isp.state.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{isp, report};
    use super::super::{Daemon, State};
    use super::*;

    #[test]
    fn the_exit_code_is_0_if_all_are_up_1_if_some_are_and_2_if_none_is() {
        let checked = |isps: &[(State, Option<Forced>)]| {
            let isp = |&(state, forced)| Isp { state, forced, ..isp("A", "a") };
            check(&Report { isps: isps.iter().map(isp).collect(), ..report() })
        };
        let up = (State::Up, None);
        assert_eq!(checked(&[up]), (0, "1 of 1 ISPs are up\n".to_owned()));
        let working = [State::Up, State::Degraded, State::Suspect].map(|state| (state, None));
        assert_eq!(checked(&working), (0, "3 of 3 ISPs are up\n".to_owned()));
        assert_eq!(checked(&[(State::Up, Some(Forced::Up))]).0, 0);
        for state in [State::Down, State::LongDown, State::Held, State::Unknown] {
            assert_eq!(checked(&[up, (state, None)]), (1, format!("1 of 2 ISPs are up: A is {state}\n")));
            assert_eq!(checked(&[(state, None)]), (2, format!("none of 1 ISPs is up: A is {state}\n")));
        }
        let down = (State::Up, Some(Forced::Down));
        assert_eq!(checked(&[up, down]), (1, "1 of 2 ISPs are up: A is forced down\n".to_owned()));
        assert_eq!(checked(&[]).0, 2);
    }

    #[test]
    fn what_a_daemon_has_left_may_be_old() {
        let report =
            Report { daemon: Daemon { pid: None, running: false }, isps: vec![isp("A", "a")], ..report() };
        assert_eq!(check(&report), (0, "1 of 1 ISPs are up; the daemon is not running\n".to_owned()));
    }
}
