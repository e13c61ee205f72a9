//! Configs that are wrong, each in one way.

/// The three lines of a good ISP, then these.
macro_rules! isp {
    ($rest:literal) => {
        concat!("[[isp]]\nname = \"A\"\ndevice = \"a0\"\n", $rest)
    };
}

/// This line, then a good ISP.
macro_rules! top {
    ($line:literal) => {
        concat!($line, "\n[[isp]]\nname = \"A\"\ndevice = \"a0\"\n")
    };
}

mod isps;
mod machine;
mod monitor;
mod policies;
mod services;
mod syntax;

/// What is wrong, the text, the line at which that is found, and a part of the message.
type Case = (&'static str, &'static str, usize, &'static str);

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [syntax::CASES, isps::CASES, machine::CASES, monitor::CASES, services::CASES, policies::CASES].concat()
}
