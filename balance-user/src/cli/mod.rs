//! The commands.

pub mod args;
pub(crate) mod figures;
pub mod output;
pub mod report;

mod addresses;
mod change;
mod check;
mod doctor;
mod events;
mod explain;
mod flows;
mod flush;
mod import;
mod run;
mod screen;
pub(crate) mod status;
mod stop;
mod top;

use args::{Cli, Command, LogLevel};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::ConfigError;
use crate::config::save::SaveError;

/// A wrong config or a wrong name: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A name that is no ISP's.
    #[error("there is no ISP {name}; there {}", are(isps))]
    NoSuchIsp {
        /// The name.
        name: String,
        /// The names that are.
        isps: Vec<String>,
    },
    /// What is asked makes no sense.
    #[error("{0}")]
    Question(String),
    /// The weight could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// Carries out a command line and returns the exit code: 0 good, 1 failed, 2 bad usage or config; `--help` tells of commands with
/// others.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    match args::parse(arguments) {
        Ok(cli) => match dispatch(cli) {
            Ok(code) => code,
            Err(error) => {
                let is_usage = error.downcast_ref::<UsageError>().is_some();
                output::print_error(&format!("error: {error:#}\n"));
                if is_usage { 2 } else { 1 }
            }
        },
        Err(farewell) if farewell.exit_code == 0 => u8::from(output::print(&farewell.text).is_err()),
        Err(farewell) => {
            output::print_error(&farewell.text);
            farewell.exit_code
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    use_colors(cli.color);
    match cli.command {
        Command::Doctor(wanted) => return doctor::doctor(&cli.instance, &wanted),
        Command::Status(status) => return status::status(&cli.instance, &status),
        Command::Run(run) => {
            start_log(cli.log_level);
            run::run(&cli.instance, &run)
        }
        Command::SetWeight(set) => change::set_weight(&cli.instance, &set),
        Command::Up(isp) => change::force(&cli.instance, isp.name, crate::control::Force::Up),
        Command::Down(isp) => change::force(&cli.instance, isp.name, crate::control::Force::Down),
        Command::Auto(isp) => change::force(&cli.instance, isp.name, crate::control::Force::Auto),
        Command::Events(events) => events::events(&cli.instance, &events),
        Command::Quota(quota) => change::set_used(&cli.instance, quota.name, quota.set),
        Command::Flows(wanted) => flows::flows(&cli.instance, &wanted),
        Command::Top => top::top(&cli.instance),
        Command::Flush(flush) => flush::flush(&cli.instance, flush.name.as_deref()),
        Command::Explain(asked) => explain::explain(&cli.instance, &asked),
        Command::Check(check) => check::check(&check.config),
        Command::Import(import) => import::import(&import.file),
        Command::Stop => {
            start_log(cli.log_level);
            stop::stop(&cli.instance)
        }
    }?;
    Ok(0)
}

/// What is decided here holds for all that is printed.
fn use_colors(when: clap::ColorChoice) {
    match when {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Logs to the journal where standard error goes there, else to standard error.
fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let registry = tracing_subscriber::registry().with(level);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    // An error says that a log was started before, which is as good.
    let _ = if let Some(journal) = journal {
        registry.with(journal).try_init()
    } else {
        let to_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let text = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(to_terminal)
            .with_target(false);
        registry.with(text).try_init()
    };
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn are(isps: &[String]) -> String {
    match isps {
        [] => "are none".to_owned(),
        [only] => format!("is only {only}"),
        all => format!("are {}", all.join(", ")),
    }
}
