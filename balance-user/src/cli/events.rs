//! `events`: what has happened.

use std::time::Duration;

use anyhow::Context;

use super::args::Events;
use super::output;
use crate::announce::event::Event;
use crate::announce::history::{self, Follower};

/// So many events `--follow` begins with.
const BEFORE: usize = 10;
/// How often it looks for new ones.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn events(instance: &str, wanted: &Events) -> anyhow::Result<()> {
    let folders = history::folders(instance);
    // Before what is there is read: rather twice than not at all.
    let mut followers: Vec<Follower> = folders.iter().map(|folder| Follower::new(folder)).collect();
    let text = render(&history::read(&folders), wanted)?;
    if text.is_empty() && !wanted.follow {
        output::print_error("nothing has happened so far\n");
    }
    output::print(&text).context("cannot print")?;
    while wanted.follow && output::is_read(INTERVAL).context("cannot watch standard output")? {
        for follower in &mut followers {
            let new = follower.read().context("cannot read the history")?;
            let all = Events { number: Some(usize::MAX), ..wanted.clone() };
            output::print(&render(&new, &all)?).context("cannot print")?;
        }
    }
    Ok(())
}

/// The events that are wanted, a line each.
fn render(events: &[Event], wanted: &Events) -> anyhow::Result<String> {
    let is_wanted = |event: &&Event| match &wanted.isp {
        Some(isp) => event.change.isp.eq_ignore_ascii_case(isp),
        None => true,
    };
    let events: Vec<&Event> = events.iter().filter(is_wanted).collect();
    let number = wanted.number.unwrap_or(if wanted.follow { BEFORE } else { usize::MAX });
    let latest = events.iter().skip(events.len().saturating_sub(number));
    let line = |event: &&Event| {
        if wanted.json { serde_json::to_string(event).context("cannot make JSON") } else { Ok(event.line()) }
    };
    latest.map(|event| line(event).map(|line| line + "\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::event::tests::event;

    #[test]
    fn the_latest_are_shown_of_one_isp_or_all() {
        let events = [event("CABLE", "down"), event("DSL", "down"), event("CABLE", "up"), event("DSL", "up")];
        let shown = |wanted: Events| {
            let text = render(&events, &wanted).unwrap();
            text.lines().map(|line| line.split(", ").next().unwrap()[22..].to_owned()).collect::<Vec<_>>()
        };
        let all = ["CABLE is down", "DSL is down", "CABLE is up", "DSL is up"];
        assert_eq!(shown(Events::default()), all);
        assert_eq!(shown(Events { number: Some(2), ..Events::default() }), all[2..]);
        assert_eq!(shown(Events { number: Some(0), ..Events::default() }), [""; 0]);
        let cable = Events { isp: Some("cable".to_owned()), number: Some(1), ..Events::default() };
        assert_eq!(shown(cable), ["CABLE is up"]);
        assert_eq!(shown(Events { isp: Some("LTE".to_owned()), ..Events::default() }), [""; 0]);
    }

    #[test]
    fn json_is_an_object_a_line() {
        let events = [event("CABLE", "down"), event("DSL", "up")];
        let text = render(&events, &Events { json: true, ..Events::default() }).unwrap();
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events);
    }
}
