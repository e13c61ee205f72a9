//! A terminal taken over as a whole, and given back however that ends.

use std::io::{self, Write as _};
use std::panic;
use std::sync::Once;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};

/// The terminal is ours until this is dropped.
pub(super) struct Screen(());

impl Screen {
    /// Takes it over: no lines, no echo, no cursor, and what is on it comes back later.
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        // A panic is told before anything is dropped, and would be told to a screen that goes away.
        HOOK.call_once(|| {
            let tell = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                tell(panic);
            }));
        });
        enable_raw_mode()?;
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// As it was. If that fails there is no terminal any more.
fn give_back() {
    let _ = execute!(io::stdout(), cursor::Show, EnableLineWrap, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// The next key that is pressed until then; none if none is, or if the size of the terminal has changed.
pub(super) fn key(until: Instant) -> io::Result<Option<KeyEvent>> {
    if !poll(until.saturating_duration_since(Instant::now()))? {
        return Ok(None);
    }
    Ok(match read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(key),
        _ => None,
    })
}

/// q, Escape and Ctrl-C.
pub(super) fn is_end(key: &KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

/// Shows a text that is made anew every so often, until a key ends it; where there is no terminal, prints it as often as long
/// as somebody reads it. `text` is told how many columns there are. Once it has succeeded, its failures are shown in its place.
pub(super) fn watch(
    interval: Duration,
    mut text: impl FnMut(Option<usize>) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut shown = text(super::output::width())?;
    if super::output::width().is_none() {
        super::output::print_styled(&shown).context("cannot print")?;
        while super::output::is_read(interval).context("cannot watch standard output")? {
            super::output::print_styled(&text(None)?).context("cannot print")?;
        }
        return Ok(());
    }
    let _screen = Screen::open().context("cannot take over the terminal")?;
    loop {
        draw(&shown).context("cannot draw")?;
        let next = Instant::now() + interval;
        while Instant::now() < next {
            match key(next).context("cannot read the keyboard")? {
                Some(key) if is_end(&key) => return Ok(()),
                Some(_) => {}
                // Time to draw, or another size.
                None => break,
            }
        }
        shown = text(super::output::width()).unwrap_or_else(|error| format!("error: {error:#}\n"));
    }
}

/// As many lines as there is room for, over those that are there: nothing flickers.
fn draw(text: &str) -> io::Result<()> {
    let (_, rows) = crossterm::terminal::size()?;
    let mut drawn = Vec::new();
    queue!(drawn, cursor::MoveTo(0, 0))?;
    for (number, line) in super::output::as_wanted(text).lines().take(usize::from(rows)).enumerate() {
        if number > 0 {
            drawn.extend(b"\r\n");
        }
        drawn.extend(line.as_bytes());
        queue!(drawn, Clear(ClearType::UntilNewLine))?;
    }
    queue!(drawn, Clear(ClearType::FromCursorDown))?;
    let mut screen = io::stdout().lock();
    screen.write_all(&drawn)?;
    screen.flush()
}
