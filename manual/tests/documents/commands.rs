//! Commands and their options.

use balance_user::cli::args::Cli;
use clap::CommandFactory;

use super::manual_page;

const REFERENCE: &str = include_str!("../../../docs/commands.md");

#[test]
fn every_command_and_every_option_is_in_its_manual_page_and_in_the_reference() {
    let mut program = Cli::command();
    program.build();
    let page_of_all = manual_page("balance-user.1");
    for command in program.get_subcommands() {
        let name = command.get_name();
        assert!(page_of_all.contains(&format!("balance-user-{name}(1)")), "{name}");
        let page = manual_page(&format!("balance-user-{name}.1"));
        let (_, section) =
            REFERENCE.split_once(&format!("\n## `{name}`\n")).unwrap_or_else(|| panic!("{name}"));
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        for option in command.get_arguments() {
            let id = option.get_id().as_str();
            let long = option.get_long().map(|long| format!("--{long}"));
            let short = option.get_short().map(|short| format!("-{short}"));
            let value =
                option.get_value_names().filter(|_| option.is_positional()).and_then(|names| names.first());
            for way in long.into_iter().chain(short).chain(value.map(ToString::to_string)) {
                assert!(page.contains(&way), "{name} {way} is not in its manual page:\n{page}");
                let is_common = option.is_global_set() || ["help", "version"].contains(&id);
                let place = if is_common { REFERENCE } else { section };
                let is_known = id == "help" || id == "version" || place.contains(&format!("`{way}"));
                assert!(is_known, "{name} {way} is not in docs/commands.md");
            }
        }
    }
}

#[test]
fn the_reference_is_what_the_program_says_of_itself() {
    let reference = balance_manual::reference();
    assert!(
        reference == REFERENCE,
        "docs/commands.md is of another version: run `cargo xtask manual`, commit it"
    );
}

#[test]
fn every_shell_completes_every_command() {
    let completions = balance_manual::completions();
    assert_eq!(completions.len(), 3);
    for completion in completions {
        let text = String::from_utf8(completion.text).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(
                text.contains(command.get_name()),
                "{}: {}",
                completion.path.display(),
                command.get_name()
            );
        }
    }
}
