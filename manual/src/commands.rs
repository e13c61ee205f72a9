//! Manual pages of the program and its commands.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::{File, PROGRAM, SOURCE, visible};

/// The page of a command, or of the program as a whole.
pub(crate) fn page(command: &Command) -> Result<File> {
    let man = Man::new(command.clone()).source(SOURCE).manual("balance");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    as_it_stands(&after.map(ToString::to_string).unwrap_or_default()).to_writer(&mut text)?;
    see_also(command).to_writer(&mut text)?;
    Ok(File { path: format!("man/man1/{}", man.get_filename()).into(), text })
}

/// What follows the options in `--help`: headings that end in a colon, with lines below them that stay as they are.
fn as_it_stands(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_open = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(heading) => {
                if is_open {
                    roff.control("fi", []);
                }
                roff.control("SH", [heading.to_uppercase().as_str()]);
                roff.control("nf", []);
                is_open = true;
            }
            None => {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
        }
    }
    if is_open {
        roff.control("fi", []);
    }
    roff
}

fn see_also(command: &Command) -> Roff {
    let mut pages: Vec<String> = if command.has_subcommands() {
        visible(command).map(|command| format!("{PROGRAM}-{}(1)", command.get_name())).collect()
    } else {
        vec![format!("{PROGRAM}(1)")]
    };
    pages.push("balance.toml(5)".to_owned());
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
    roff
}
