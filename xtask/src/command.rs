//! Running other programs: always shown first, and always with a useful error.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};

/// Shows the command and runs it with the terminal's input and output. Fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    show(command);
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    if !status.success() {
        bail!("`{}` failed: {status}", name(command));
    }
    Ok(())
}

/// What the command, which only looks and changes nothing and is therefore not shown, writes to its standard
/// output, trimmed. Fails unless it exits with 0.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| cannot_run(command, &error))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shell_line(command), output.status);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` did not write UTF-8", shell_line(command)))?;
    Ok(text.trim().to_owned())
}

/// Prints the command as a line that a shell would take.
pub(crate) fn show(command: &Command) {
    // Not `println`, which panics when nobody reads any more: the command matters more than that it is seen.
    let _ = writeln!(io::stdout(), "$ {}", shell_line(command));
}

/// Why a command could not even be started.
pub(crate) fn cannot_run(command: &Command, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("`{}` is not installed or not in PATH", name(command)),
        _ => anyhow!("cannot run `{}`: {error}", name(command)),
    }
}

fn name(command: &Command) -> Cow<'_, str> {
    command.get_program().to_string_lossy()
}

fn shell_line(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}={} ", name.to_string_lossy(), quoted(value));
        }
    }
    line += &quoted(command.get_program());
    for argument in command.get_args() {
        line.push(' ');
        line += &quoted(argument);
    }
    line
}

/// The word as bash would have to be given it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else if word.contains(char::is_control) {
        format!("$'{}'", word.chars().map(escaped).collect::<String>())
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The character inside bash's `$'...'`.
fn escaped(c: char) -> String {
    match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command.env("A", "1").env_remove("B").args(["%s\\n", "plain-1.0", "two words", "it's", ""]);
        assert_eq!(shell_line(&command), r"A=1 printf '%s\n' plain-1.0 'two words' 'it'\''s' ''");
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        assert_eq!(quoted(OsStr::new("a\x1fb'c")), r"$'a\x1fb\'c'");
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed: exit status: 3");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = read(&mut Command::new("no-such-program-of-balance")).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program-of-balance` is not installed or not in PATH");
    }
}
