//! What keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Action, Command, Mode, Panel, Sort, State};
use crate::config::WEIGHTS;
use crate::control::Force;

/// So long is a filter at most.
const LONGEST: usize = 40;

impl State {
    /// Takes a key that was pressed.
    pub fn key(&mut self, key: &KeyEvent) -> Action {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Normal => return self.command(key.code),
            // Any key closes it.
            Mode::Help => {}
            Mode::Filter => self.type_filter(key.code),
            Mode::Weight(isp, typed) => self.type_weight(isp, typed, key.code),
            Mode::Confirm(command) => match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => return Action::Do(command),
                _ => self.say("nothing was changed"),
            },
        }
        Action::None
    }

    fn command(&mut self, key: KeyCode) -> Action {
        self.message = None;
        match key {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = (self.selected + 1).min(self.isps().len().saturating_sub(1));
            }
            KeyCode::Tab => {
                self.panel = match self.panel {
                    Panel::Flows => Panel::Hosts,
                    Panel::Hosts => Panel::Events,
                    Panel::Events => Panel::Flows,
                }
            }
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Bytes => Sort::Newest,
                    Sort::Newest => Sort::Address,
                    Sort::Address => Sort::Bytes,
                }
            }
            KeyCode::Char('u') => self.ask_to_force(Force::Up),
            KeyCode::Char('d') => self.ask_to_force(Force::Down),
            KeyCode::Char('a') => self.ask_to_force(Force::Auto),
            KeyCode::Char('+') => self.ask_for_weight(|weight| weight.saturating_add(1)),
            KeyCode::Char('-') => self.ask_for_weight(|weight| weight.saturating_sub(1)),
            KeyCode::Char('w') => {
                if let Some(isp) = self.isp() {
                    self.mode = Mode::Weight(isp.name.clone(), String::new());
                }
            }
            _ => {}
        }
        Action::None
    }

    fn ask_to_force(&mut self, to: Force) {
        if let Some(isp) = self.isp() {
            self.mode = Mode::Confirm(Command::Force(isp.name.clone(), to));
        }
    }

    fn ask_for_weight(&mut self, change: impl FnOnce(u16) -> u16) {
        let (lowest, highest) = WEIGHTS;
        if let Some((name, weight)) = self.isp().and_then(|isp| Some((isp.name.clone(), isp.weight?))) {
            self.mode = Mode::Confirm(Command::SetWeight(name, change(weight).clamp(lowest, highest)));
        }
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => return self.filter.clear(),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) if self.filter.len() < LONGEST => self.filter.push(character),
            _ => {}
        }
        self.mode = Mode::Filter;
    }

    fn type_weight(&mut self, isp: String, mut typed: String, key: KeyCode) {
        match key {
            KeyCode::Esc => return,
            KeyCode::Enter => {
                let (lowest, highest) = WEIGHTS;
                let weight = typed.parse().ok().filter(|weight| (lowest..=highest).contains(weight));
                match weight {
                    Some(weight) => self.mode = Mode::Confirm(Command::SetWeight(isp, weight)),
                    None => self.say(format!("a weight is {lowest} to {highest}")),
                }
                return;
            }
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Char(digit) if digit.is_ascii_digit() && typed.len() < 4 => typed.push(digit),
            _ => {}
        }
        self.mode = Mode::Weight(isp, typed);
    }
}
