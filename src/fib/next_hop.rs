//! The name of a next hop.

use std::fmt;
use std::num::NonZeroU32;

/// The number of a next hop, 0 to [`NextHopId::MAX`].
///
/// What it stands for is the caller's: an index into a table of tunnel endpoints, say. `Option<NextHopId>` takes four
/// bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHopId(NonZeroU32);

impl NextHopId {
    /// The largest number, 2³⁰ − 2.
    pub const MAX: u32 = (1 << 30) - 2;

    /// The next hop of this number, or `None` when it exceeds [`NextHopId::MAX`].
    #[must_use]
    #[inline]
    pub const fn new(number: u32) -> Option<Self> {
        if number > Self::MAX {
            return None;
        }
        match NonZeroU32::new(number + 1) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    /// Its number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get() - 1
    }

    /// How tables store it: never 0.
    #[inline]
    pub(super) const fn code(self) -> u32 {
        self.0.get()
    }

    /// The next hop that a table stores as `code`, where 0 is none.
    #[inline]
    pub(super) fn from_code(code: u32) -> Option<Self> {
        NonZeroU32::new(code).map(Self)
    }
}

impl fmt::Debug for NextHopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.get())
    }
}
