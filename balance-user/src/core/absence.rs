//! Whether an ISP is back.

/// Whether flows have had to do without an ISP in a family. At a fresh start they have not, as nothing is known of it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Absence {
    #[default]
    None,
    /// It has been found unusable.
    Present,
    /// It is usable again, and nothing has been done about that yet.
    Over,
}

impl Absence {
    /// Takes in whether it is usable now; and if not, whether that is known, or only nothing yet.
    pub(super) fn observe(&mut self, usable: bool, is_lost: bool) {
        match (usable, *self) {
            (false, _) if is_lost => *self = Self::Present,
            (true, Self::Present) => *self = Self::Over,
            _ => {}
        }
    }

    /// Whether it is over; once each time.
    pub(super) fn take_end(&mut self) -> bool {
        let is_over = *self == Self::Over;
        if is_over {
            *self = Self::None;
        }
        is_over
    }
}
