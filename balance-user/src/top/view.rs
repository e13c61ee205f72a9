//! How it looks: 80 columns and 24 lines are enough; with more, graphs are longer and panels stand side by side.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::{Command, Mode, Panel, Rate, Sort, State};
use crate::cli::figures::{age, amount, milliseconds, percent};
use crate::cli::report::{Forced, Isp};
use crate::control::Force;
use crate::core::health::State as Health;
use crate::flows::FlowTold;

/// From this width on, flows and hosts stand side by side, and events below.
const WIDE: u16 = 150;
/// So many ISPs are shown at once.
const MOST_ISPS: usize = 12;

const HELP: &str = "\
up, down  select an ISP        u  use it in any case
Tab       flows, hosts, events d  give it no new flows
s         sort                 a  its probes decide again
/         filter; Esc: none    w  set its weight
?         this help            +- its weight one more, less
q         end

FAST is the part of the packets of the last seconds that went
past the kernel. IN and OUT are bits a second; the graph is
both. SHARE is the part of the new flows, WEIGHT also says
what it would be if all ISPs worked in one tier.";

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let isps = state.isps().len().clamp(1, MOST_ISPS);
    let height = u16::try_from(isps).unwrap_or(1) + 1;
    let [title, table, panels, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(heading(state, title.width), title);
    frame.render_widget(isp_table(state, table.width), table);
    draw_panels(frame, state, panels);
    frame.render_widget(Paragraph::new(last_line(state)), bottom);
    match &state.mode {
        Mode::Help => popup(frame, " keys ", HELP),
        Mode::Confirm(command) => {
            popup(frame, " sure? ", &format!("{}\n\ny: yes   any other key: no", asked(command)));
        }
        Mode::Weight(isp, typed) => {
            popup(
                frame,
                " weight ",
                &format!("Weight of {isp} (1 to 1000): {typed}_\n\nEnter: on   Esc: no"),
            );
        }
        Mode::Normal | Mode::Filter => {}
    }
}

fn asked(command: &Command) -> String {
    match command {
        Command::Force(isp, Force::Up) => format!("Use {isp} whatever its probes say?"),
        Command::Force(isp, Force::Down) => format!("Give {isp} no new flows, whatever its probes say?"),
        Command::Force(isp, Force::Auto) => format!("Let the probes of {isp} decide again?"),
        Command::SetWeight(isp, weight) => {
            format!("Set the weight of {isp} to {weight}? (until the config is read again)")
        }
    }
}

fn heading(state: &State, width: u16) -> Paragraph<'static> {
    let Some(sample) = &state.sample else { return Paragraph::new("balance: taking a first look ...") };
    let time = humantime::format_rfc3339_seconds(sample.time).to_string();
    let rates = || state.rates.values().filter_map(|rates| rates.back());
    let (received, sent): (f64, f64) =
        rates().fold((0.0, 0.0), |(received, sent), rate| (received + rate.received, sent + rate.sent));
    let daemon = if sample.report.daemon.running { "" } else { "  DAEMON NOT RUNNING" };
    let left = format!(
        "balance {}  {}{daemon}  in {}  out {}",
        sample.report.instance,
        time.get(11..19).unwrap_or_default(),
        bits(received),
        bits(sent)
    );
    let right = "? help  q end";
    let gap = usize::from(width).saturating_sub(left.chars().count() + right.len());
    let line = Line::from(format!("{left}{}{right}", " ".repeat(gap)));
    Paragraph::new(line).style(Style::new().add_modifier(Modifier::REVERSED))
}

/// The ISPs, and what their lines have carried lately.
fn isp_table(state: &State, width: u16) -> Paragraph<'static> {
    let header = format!(
        "  {:<8} {:<9} {:>5} {:>6} {:>7} {:>4} {:>5} {:>4} {:>5} {:>5} {}",
        "ISP", "STATE", "SHARE", "WEIGHT", "RTT ms", "LOSS", "FLOWS", "FAST", "IN", "OUT", "GRAPH"
    );
    let style = Style::new().add_modifier(Modifier::BOLD);
    let total: u32 = state.isps().iter().filter_map(|isp| isp.weight).map(u32::from).sum();
    // The selected one is always among those that are shown.
    let first = (state.selected + 1).saturating_sub(MOST_ISPS);
    let rows = state.isps().iter().enumerate().skip(first).take(MOST_ISPS);
    let rows = rows.map(|(place, isp)| isp_line(state, isp, (place == state.selected, total), width));
    let lines: Vec<Line<'_>> = std::iter::once(Line::styled(header, style)).chain(rows).collect();
    Paragraph::new(Text::from(lines))
}

fn isp_line(state: &State, isp: &Isp, (is_selected, total): (bool, u32), width: u16) -> Line<'static> {
    let rates = state.rates.get(&isp.name);
    let last = rates.and_then(|rates| rates.back()).copied();
    let rate = |of: fn(&Rate) -> f64| last.map_or("-".to_owned(), |rate| bits(of(&rate)));
    let dash = || "-".to_owned();
    let weight = isp.weight.map_or_else(dash, |weight| {
        let part = 100.0 * f64::from(weight) / f64::from(total.max(1));
        format!("{weight}={}", percent(part))
    });
    let marker = if is_selected { "> " } else { "  " };
    let fast = last.and_then(|rate| rate.fast).map_or_else(dash, |fast| percent(100.0 * fast));
    let rest = format!(
        " {:>5} {weight:>6} {:>7} {:>4} {:>5} {fast:>4} {:>5} {:>5} ",
        percent(100.0 * isp.share),
        format!("{}/{}", milliseconds(isp.rtt_ms), milliseconds(isp.jitter_ms)),
        isp.loss_percent.map_or_else(dash, percent),
        isp.flows.map_or_else(dash, amount),
        rate(|rate| rate.received),
        rate(|rate| rate.sent),
    );
    let name: String = isp.name.chars().take(8).collect();
    let (word, color) = health(isp);
    let spans = [
        Span::raw(format!("{marker}{name:<8} ")),
        Span::styled(format!("{word:<9}"), Style::new().fg(color).add_modifier(Modifier::BOLD)),
        Span::raw(rest),
    ];
    let used: usize = spans.iter().map(Span::width).sum();
    let values: Vec<f64> = rates.into_iter().flatten().map(|rate| rate.sent + rate.received).collect();
    let graph = graph(&values, usize::from(width).saturating_sub(used));
    let graph = Span::styled(graph, Style::new().fg(Color::Cyan));
    spans.into_iter().chain([graph]).collect()
}

fn health(isp: &Isp) -> (String, Color) {
    let color = match isp.state {
        Health::Down | Health::LongDown | Health::Held => Color::Red,
        Health::Unknown | Health::Suspect | Health::Degraded => Color::Yellow,
        Health::Up => Color::Green,
    };
    match isp.forced {
        None => (isp.state.to_string(), color),
        Some(Forced::Up) => ("UP forced".to_owned(), color),
        Some(Forced::Down) => ("DN forced".to_owned(), Color::Yellow),
    }
}

fn draw_panels(frame: &mut Frame<'_>, state: &State, area: Rect) {
    if area.width >= WIDE {
        let [upper, events] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(1)]).areas(area);
        let [flows, hosts] = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas(upper);
        for (panel, area) in [(Panel::Flows, flows), (Panel::Hosts, hosts), (Panel::Events, events)] {
            draw_panel(frame, state, panel, area);
        }
    } else {
        draw_panel(frame, state, state.panel, area);
    }
}

fn draw_panel(frame: &mut Frame<'_>, state: &State, panel: Panel, area: Rect) {
    let name = match panel {
        Panel::Flows => "flows",
        Panel::Hosts => "hosts",
        Panel::Events => "events",
    };
    let order = match (panel, state.sort) {
        (Panel::Events, _) => "latest last",
        (_, Sort::Bytes) => "by bytes",
        (Panel::Flows, Sort::Newest) => "newest first",
        (Panel::Hosts, Sort::Newest) => "by flows",
        (_, Sort::Address) => "by address",
    };
    let filter = if state.filter.is_empty() { String::new() } else { format!(", with {:?}", state.filter) };
    let block = Block::bordered()
        .title(format!(" {name}, {order}{filter} "))
        .title_bottom(" Tab: next  s: sort  /: filter ");
    let lines = match panel {
        Panel::Flows => flow_lines(&state.flows()),
        Panel::Hosts => host_lines(state),
        Panel::Events => {
            let events = state.sample.as_ref().map(|sample| sample.events.as_slice()).unwrap_or_default();
            let room = usize::from(area.height.saturating_sub(2));
            let latest = events.iter().skip(events.len().saturating_sub(room));
            latest.map(|event| Line::raw(event.clone())).collect()
        }
    };
    frame.render_widget(Paragraph::new(Text::from(lines)).block(block), area);
}

fn flow_lines(flows: &[&FlowTold]) -> Vec<Line<'static>> {
    let cells = |flow: &&FlowTold| {
        let [source, destination] = flow.ends();
        [flow.protocol.clone(), source, destination, flow.isp.clone()]
    };
    let header = ["PROTO", "SOURCE", "DESTINATION", "ISP"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(flows.iter().map(cells)).collect();
    let widths: [usize; 4] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let rest = flows.iter().map(|flow| {
        let path = if flow.fast { "fast" } else { "slow" };
        let bytes = flow.bytes.map_or("-".to_owned(), amount);
        let age = flow.age.map_or("-".to_owned(), |seconds| age(Duration::from_secs(seconds)));
        format!("{path} {bytes:>5} {age:>5} {}", flow.why)
    });
    let rest = std::iter::once("PATH BYTES   AGE WHY".to_owned()).chain(rest);
    let lines = rows.iter().zip(rest).enumerate().map(|(place, (row, rest))| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$} "));
        let style = if place == 0 { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        Line::styled(cells.collect::<String>() + &rest, style)
    });
    lines.collect()
}

fn host_lines(state: &State) -> Vec<Line<'static>> {
    let hosts = state.hosts();
    let width = hosts.iter().map(|host| host.address.to_string().len()).max().unwrap_or(0).max(4);
    let header = format!("{:<width$} {:>6} {:>5}  {}", "HOST", "FLOWS", "BYTES", "ISPS");
    let header = Line::styled(header, Style::new().add_modifier(Modifier::BOLD));
    let line = |host: &&super::Host| {
        let isps: Vec<String> =
            host.isps.iter().map(|(name, flows)| format!("{name} {}", amount(*flows))).collect();
        let bytes = host.bytes.map_or("-".to_owned(), amount);
        Line::raw(format!(
            "{:<width$} {:>6} {bytes:>5}  {}",
            host.address.to_string(),
            amount(host.flows),
            isps.join(", ")
        ))
    };
    std::iter::once(header).chain(hosts.iter().map(line)).collect()
}

fn last_line(state: &State) -> Line<'static> {
    if state.mode == Mode::Filter {
        return Line::raw(format!("filter: {}_   Enter: on   Esc: none", state.filter));
    }
    let reason = || state.isp().and_then(|isp| isp.reason.clone());
    match (&state.message, state.isp()) {
        (Some(message), _) => Line::styled(message.clone(), Style::new().fg(Color::Yellow)),
        (None, Some(isp)) => Line::raw(match reason() {
            Some(reason) => format!("{}: {reason}", isp.name),
            None => format!("{} ({}): u up  d down  a auto  w weight", isp.name, isp.device),
        }),
        (None, None) => Line::default(),
    }
}

fn popup(frame: &mut Frame<'_>, title: &str, text: &str) {
    let width = text.lines().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
    let height = text.lines().count() + 2;
    let whole = frame.area();
    let size = |wanted: usize, most: u16| u16::try_from(wanted).unwrap_or(most).min(most);
    let (width, height) = (size(width, whole.width), size(height, whole.height));
    let area = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    let block = Block::bordered().title(title.to_owned()).padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text.to_owned()).block(block), area);
}

/// The latest values, the last at the end, as bars against the highest.
fn graph(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
    let highest = shown.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let mut height = 0;
        // From the lowest bar up, so that no number must be cut.
        for step in 1..BARS.len() {
            if *value > 0.0 && value / highest * BARS.len() as f64 >= step as f64 {
                height = step;
            }
        }
        BARS.get(height).copied().unwrap_or(' ')
    };
    shown.iter().map(bar).collect()
}

/// Bits a second.
fn bits(rate: f64) -> String {
    // A rate is finite and not negative, and small enough.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, cut to whole bits")]
    let whole = rate as u64;
    amount(whole)
}
