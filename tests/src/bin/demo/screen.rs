//! What the demo shows: headings, evidence, claims.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// The width of the bar of an ISP that has everything.
const BAR: usize = 40;

/// Standard output, which may be a terminal, a file, or a pipe that somebody closes.
pub(crate) struct Screen {
    styled: bool,
    step: usize,
    claims: usize,
    broken: usize,
    closed: bool,
}

/// One line of a table of shares.
pub(crate) struct Share<'a> {
    /// The ISP.
    pub(crate) isp: &'a str,
    /// The weight that it has.
    pub(crate) weight: usize,
    /// The flows that it got.
    pub(crate) flows: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let styled = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { styled, step: 0, claims: 0, broken: 0, closed: false }
    }

    /// How many claims were made.
    pub(crate) fn claims(&self) -> usize {
        self.claims
    }

    /// How many of them did not hold.
    pub(crate) fn broken(&self) -> usize {
        self.broken
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What happens now.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.step += 1;
        let line = self.styled("1", &format!("{}. {text}", self.step));
        self.line(format_args!("\n{line}"))
    }

    /// A line at the margin.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        // Not `println`, which panics when the pipe is closed.
        let written = writeln!(io::stdout(), "{text}");
        self.closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    /// Indented lines.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        for line in text.trim_end().lines() {
            self.line(format!("   {line}").trim_end())?;
        }
        Ok(())
    }

    /// A command of which the output follows.
    pub(crate) fn command(&mut self, command: &str) -> io::Result<()> {
        self.say(&format!("$ {command}"))
    }

    /// Says that something is as it should be, or is not.
    pub(crate) fn claim(&mut self, holds: bool, text: &str) -> io::Result<()> {
        self.claims += 1;
        self.broken += usize::from(!holds);
        let verdict = if holds { self.styled("32", "ok") } else { self.styled("1;31", "FAILED") };
        self.say(&format!("{verdict}: {text}"))
    }

    /// Who got how many of the flows.
    pub(crate) fn shares(&mut self, shares: &[Share<'_>]) -> io::Result<()> {
        let weights: usize = shares.iter().map(|share| share.weight).sum();
        let flows: usize = shares.iter().map(|share| share.flows).sum();
        self.say("ISP    WEIGHT  EXPECTED  FLOWS   SHARE")?;
        for share in shares {
            let bar = "#".repeat((share.flows * BAR + flows / 2).checked_div(flows).unwrap_or(0));
            self.say(&format!(
                "{:<6} {:>6} {:>8.1}% {:>6} {:>6.1}%  {bar}",
                share.isp,
                share.weight,
                percent(share.weight, weights),
                share.flows,
                percent(share.flows, flows),
            ))?;
        }
        Ok(())
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.styled { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A part of a whole, in percent; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "numbers of flows are small")]
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
