//! `top`: a live view.

mod sampler;

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::screen::{Screen, key};
use super::{change, output};
use crate::control::Request;
use crate::top::{Action, Command, State, draw};
use sampler::Sampler;

/// So long a key, or a sample, may wait to be shown.
const INTERVAL: Duration = Duration::from_millis(250);

pub(super) fn top(instance: &str) -> anyhow::Result<()> {
    if output::width().is_none() {
        anyhow::bail!("top needs a terminal; `balance-user status --json` is for programs");
    }
    let sampler = Sampler::start(instance)?;
    let mut state = State::default();
    let _screen = Screen::open().context("cannot take over the terminal")?;
    let mut terminal =
        Terminal::new(CrosstermBackend::new(io::stdout())).context("cannot use the terminal")?;
    loop {
        match sampler.latest()? {
            Some(Ok(sample)) => state.take(sample),
            Some(Err(error)) => state.say(error),
            None => {}
        }
        terminal.draw(|frame| draw(frame, &state)).context("cannot draw")?;
        let Some(key) = key(Instant::now() + INTERVAL).context("cannot read the keyboard")? else { continue };
        match state.key(&key) {
            Action::None => {}
            Action::Quit => return Ok(()),
            Action::Do(command) => {
                let (name, request) = request(command);
                match change::change(instance, &name, &request) {
                    Ok(()) => state.say("done"),
                    Err(error) => state.say(format!("{error:#}")),
                }
            }
        }
    }
}

/// The name of the ISP, and what the daemon is asked.
fn request(command: Command) -> (String, Request) {
    match command {
        Command::Force(isp, to) => (isp.clone(), Request::Force { isp, to }),
        Command::SetWeight(isp, weight) => (isp.clone(), Request::SetWeight { isp, weight }),
    }
}
