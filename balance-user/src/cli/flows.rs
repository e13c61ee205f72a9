//! `flows`: which flow is on which ISP, and why.

mod text;
pub(super) mod view;

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use balance_common::IspId;
use serde::Serialize;

use super::args::Flows;
use super::flush::isp_named;
use super::output;
use super::status::open_maps;
use crate::conntrack::{self, Events, IspMark, Live};
use crate::flows::{Change, FlowTold, Follower};
use text::{Columns, hint};
use view::View;

/// Columns are made to fit so many flows, the first ones, which are shown at once. Memory does not grow with what follows.
const FITTED: usize = 256;
/// So often what is followed is brought up to date: rules, tables, and whether anybody still reads.
const INTERVAL: Duration = Duration::from_millis(500);

/// A flow and what has happened to it. This is the JSON of `flows --follow --json`.
#[derive(Debug, Serialize)]
struct Event {
    #[serde(rename = "event")]
    what: &'static str,
    /// In which ISP's place, if it has moved.
    from: Option<String>,
    time: String,
    #[serde(flatten)]
    flow: FlowTold,
}

pub(super) fn flows(instance: &str, wanted: &Flows) -> anyhow::Result<()> {
    let maps = open_maps(instance)?;
    let isp = wanted.isp.as_deref().map(|name| isp_named(&maps, name)).transpose()?;
    let view = View::open(instance, &maps)?;
    let is_wanted = |live: &Live, on: IspId| {
        isp.is_none_or(|isp| isp == on)
            && wanted.source.is_none_or(|prefix| prefix.contains(&live.original.source))
    };
    if wanted.follow {
        return output::stream(|out| follow(instance, view, wanted.json, is_wanted, out));
    }
    output::stream(|out| list(view, isp, wanted.json, is_wanted, out))
}

fn list(
    mut view: View<'_>,
    isp: Option<IspId>,
    json: bool,
    is_wanted: impl Fn(&Live, IspId) -> bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut printer = Printer::default();
    let now = SystemTime::now();
    let mut missing = None;
    let filter = isp.and_then(|isp| IspMark::new(isp, view.mask().bits()));
    conntrack::each(filter, |live| {
        let Some(isp) = view.isp_of(live).filter(|isp| is_wanted(live, *isp)) else {
            return Ok::<_, anyhow::Error>(());
        };
        let told = view.tell(live, isp, now);
        missing.get_or_insert((told.bytes.is_none(), told.age.is_none()));
        if json { json_line(out, &told) } else { printer.add(told, out) }
    })?;
    if json {
        return Ok(());
    }
    printer.flush(out)?;
    output::print_error(&hint(missing));
    Ok(())
}

fn follow(
    instance: &str,
    mut view: View<'_>,
    json: bool,
    is_wanted: impl Fn(&Live, IspId) -> bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut events = Events::open()?;
    let mut follower = Follower::default();
    let columns = Columns::usual();
    while output::is_read(Duration::ZERO)? {
        view.renew(instance)?;
        let lost = events.read(Instant::now() + INTERVAL, |happened, live| {
            let Some((isp, change)) = follower.observe(happened, live, view.isp_of(live)) else {
                return Ok(());
            };
            let from = if let Change::Moved(from) = change { Some(from) } else { None };
            if !is_wanted(live, isp) && !from.is_some_and(|from| is_wanted(live, from)) {
                return Ok(());
            }
            let now = SystemTime::now();
            let event = Event {
                what: word(change),
                from: from.map(|from| view.name(from)),
                time: humantime::format_rfc3339_seconds(now).to_string(),
                flow: view.tell(live, isp, now),
            };
            if json {
                json_line(out, &event)?;
            } else {
                writeln!(out, "{}", columns.event(&event))?;
            }
            Ok::<_, anyhow::Error>(out.flush()?)
        })?;
        if lost {
            output::print_error("some changes were missed: there were too many at once\n");
        }
    }
    Ok(())
}

const fn word(change: Change) -> &'static str {
    match change {
        Change::New => "new",
        Change::Moved(_) => "moved",
        Change::Lost => "lost",
        Change::Ended => "ended",
    }
}

fn json_line(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    // Not written by it, as it would hide why that fails.
    Ok(writeln!(out, "{}", serde_json::to_string(value)?)?)
}

/// Prints flows in columns that fit the first of them.
#[derive(Default)]
struct Printer {
    first: Vec<FlowTold>,
    columns: Option<Columns>,
}

impl Printer {
    fn add(&mut self, told: FlowTold, out: &mut dyn Write) -> anyhow::Result<()> {
        if let Some(columns) = &self.columns {
            return Ok(writeln!(out, "{}", columns.line(&told))?);
        }
        self.first.push(told);
        if self.first.len() < FITTED { Ok(()) } else { self.flush(out) }
    }

    /// Prints what waits.
    fn flush(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.columns.is_none() && !self.first.is_empty() {
            let columns = Columns::fit(&self.first);
            writeln!(out, "{}", columns.header())?;
            for told in self.first.drain(..) {
                writeln!(out, "{}", columns.line(&told))?;
            }
            self.columns = Some(columns);
        }
        Ok(out.flush()?)
    }
}
