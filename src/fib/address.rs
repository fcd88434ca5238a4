//! What IPv4 and IPv6 addresses have in common, as numbers.

use std::fmt::Debug;

/// An address as a number, the first bit highest.
pub(super) trait Address: Copy + Ord + Debug {
    /// The address with all bits beyond the first `len` cleared: the first of its prefix.
    fn first(self, len: u8) -> Self;

    /// The address with all bits beyond the first `len` set: the last of its prefix.
    fn last(self, len: u8) -> Self;

    /// The next address, or `None` after the last one.
    fn next(self) -> Option<Self>;

    /// The address `self` with its bit `at` set, counted from the first one.
    fn with_bit(self, at: u8) -> Self;
}

macro_rules! address {
    ($number:ty, $bits:literal) => {
        impl Address for $number {
            fn first(self, len: u8) -> Self {
                self & !<$number>::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }

            fn last(self, len: u8) -> Self {
                self | <$number>::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn with_bit(self, at: u8) -> Self {
                self | (1 << ($bits - 1)) >> at
            }
        }
    };
}

address!(u32, 32);
address!(u64, 64);
address!(u128, 128);
