//! The reference of the commands, in Markdown.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::{PROGRAM, command, visible};

/// What `docs/commands.md` must be.
#[must_use]
pub fn reference() -> String {
    let command = command();
    let mut text = format!(
        "<!-- Made by `cargo xtask manual` from the definition of the command line: do not edit. -->\n\n\
         # Commands\n\n{}\n\nAll commands have these options:\n",
        about(&command)
    );
    options(&mut text, command.get_arguments().filter(|option| option.is_global_set()));
    for command in visible(&command) {
        let mut usage = command.clone();
        let usage = usage.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let _ =
            write!(text, "\n## `{}`\n\n{}\n\n```text\n{usage}\n```\n", command.get_name(), about(command));
        options(&mut text, command.get_arguments().filter(|option| !option.is_global_set()));
        block(&mut text, command);
    }
    let _ = write!(text, "\n## `{PROGRAM}` as a whole\n");
    block(&mut text, &command);
    text
}

/// What is said of a command.
fn about(command: &Command) -> String {
    command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default()
}

/// A table of options, without those that everything has.
fn options<'a>(text: &mut String, options: impl Iterator<Item = &'a Arg>) {
    let options = options
        .filter(|option| !option.is_hide_set() && !["help", "version"].contains(&option.get_id().as_str()));
    let mut head = "\n| option | default | meaning |\n|---|---|---|\n";
    for option in options {
        let _ =
            writeln!(text, "{head}| {} | {} | {} |", form(option), default(option), cell(&meaning(option)));
        head = "";
    }
}

/// How an option is written.
fn form(option: &Arg) -> String {
    let values = option.get_value_names().unwrap_or_default();
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    let takes_values = option.get_action().takes_values() && !values.is_empty();
    let values = if takes_values { values.join(" ") } else { String::new() };
    let names: Vec<_> = [
        option.get_short().map(|short| format!("-{short}")),
        option.get_long().map(|long| format!("--{long}")),
    ]
    .into_iter()
    .flatten()
    .map(|name| format!("`{}`", format!("{name} {values}").trim_end()))
    .collect();
    if names.is_empty() { format!("`{values}`") } else { names.join(", ") }
}

fn default(option: &Arg) -> String {
    let defaults = option.get_default_values();
    // A switch that is not given is off, which needs no saying.
    if defaults.is_empty() || !option.get_action().takes_values() {
        return String::new();
    }
    let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
    format!("`{}`", defaults.join(" "))
}

fn meaning(option: &Arg) -> String {
    let help = option.get_long_help().or_else(|| option.get_help());
    let mut meaning = help.map(ToString::to_string).unwrap_or_default();
    if option.get_action().takes_values() {
        let values: Vec<_> =
            option.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !values.is_empty() {
            let _ = write!(meaning, ": {}", values.join(", "));
        }
    }
    meaning
}

/// Text that keeps to its cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Examples and the like.
fn block(text: &mut String, command: &Command) {
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        let _ = write!(text, "\n```text\n{}\n```\n", after.to_string().trim_end());
    }
}
