//! The states of a path.

use std::fmt;

use balance_common::layout::IspState;

/// What is believed of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing yet: it has just started. Not used.
    Unknown,
    /// It works.
    Up,
    /// It works, but badly: a limit of loss, latency or jitter is exceeded. Used, unless a policy wants no such ISPs.
    Degraded,
    /// There is doubt, but it is used until that is settled.
    Suspect,
    /// It does not work.
    Down,
    /// It has not worked for long.
    LongDown,
    /// It answers again, but has come and gone too often lately to be used.
    Held,
}

/// What probes alone say of a path; the rest is how well it works, how long it has been down, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    Unknown,
    Up,
    Suspect,
    Down,
}

impl State {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Unknown, Self::Up, Self::Degraded, Self::Suspect, Self::Down, Self::LongDown, Self::Held];

    /// New flows may be given to it.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Degraded | Self::Suspect)
    }
}

impl Belief {
    pub(super) const fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }
}

impl From<State> for Belief {
    fn from(state: State) -> Self {
        match state {
            State::Unknown => Self::Unknown,
            State::Up | State::Degraded => Self::Up,
            State::Suspect => Self::Suspect,
            State::Down | State::LongDown | State::Held => Self::Down,
        }
    }
}

/// As it is stored in the `ISPS` map.
impl From<IspState> for State {
    fn from(stored: IspState) -> Self {
        match stored {
            IspState::Unknown => Self::Unknown,
            IspState::Up => Self::Up,
            IspState::Suspect => Self::Suspect,
            IspState::Degraded => Self::Degraded,
            IspState::Down => Self::Down,
            IspState::LongDown => Self::LongDown,
            IspState::Held => Self::Held,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::LongDown => "long_down",
            Self::Held => "held",
        })
    }
}
