//! The offloads that a dataplane can make use of; each can be switched on its own.

use std::fmt;
use std::str::FromStr;

/// Declares the offloads once: variant, name and meaning belong together and are all public.
macro_rules! offloads {
    ($($variant:ident, $name:literal, $meaning:literal;)*) => {
        /// Something the kernel does for many frames at once, or is spared by this dataplane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Offload {
            $(#[doc = $meaning] $variant,)*
        }

        impl Offload {
            /// All offloads, in the order in which they are listed.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in settings and outputs: lower-case words joined by `-`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

offloads! {
    Checksum, "checksum",
        "Devices give frames with unfinished TCP and UDP checksums (`TUN_F_CSUM`).";
    Tso, "tso",
        "Devices give TCP super-frames (`TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_TSO_ECN`); needs `checksum`.";
    Uso, "uso",
        "Devices give super-frames of UDP datagrams (`TUN_F_USO4`, `TUN_F_USO6`; Linux 6.2); needs `checksum`.";
    CoalesceTcp, "coalesce-tcp",
        "Devices take TCP super-frames: those of peers and of other devices whole, and frames of one flow that arrive \
         together as one.";
    CoalesceUdp, "coalesce-udp",
        "Devices take super-frames of UDP datagrams: those of peers and of other devices whole, and frames of one flow and \
         length that arrive together as one (Linux 6.2).";
    UdpGso, "udp-gso",
        "Datagrams of one length to one VTEP leave with one call (`UDP_SEGMENT`; Linux 4.18).";
    UdpGro, "udp-gro",
        "Datagrams of one length from one VTEP arrive with one call (`UDP_GRO`; Linux 5.12).";
}

impl Offload {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of offloads.
///
/// In text: `auto` (all that work here), `off`, a list of names, or `auto` with some left out, as in `auto,-uso`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Offloads(u8);

impl Offloads {
    /// No offload at all: one frame, one system call.
    pub const NONE: Self = Self(0);

    /// Every offload.
    pub const ALL: Self = Self((1 << Offload::ALL.len()) - 1);

    /// Whether `offload` is in the set.
    #[must_use]
    #[inline]
    pub const fn contains(self, offload: Offload) -> bool {
        self.0 & offload.bit() != 0
    }

    /// The set and `offload`.
    #[must_use]
    pub const fn with(self, offload: Offload) -> Self {
        Self(self.0 | offload.bit())
    }

    /// The set without `offload`.
    #[must_use]
    pub const fn without(self, offload: Offload) -> Self {
        Self(self.0 & !offload.bit())
    }

    /// What is in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its members, in the order of [`Offload::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Offload> {
        Offload::ALL.iter().copied().filter(move |offload| self.contains(*offload))
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set without what cannot work without the rest of it: devices do `tso` and `uso` only together with
    /// `checksum`. Switching `checksum` off so switches all three off.
    #[must_use]
    pub const fn usable(self) -> Self {
        if self.contains(Offload::Checksum) {
            self
        } else {
            self.without(Offload::Tso).without(Offload::Uso)
        }
    }

    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    #[cfg(all(feature = "io", target_os = "linux"))]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl FromIterator<Offload> for Offloads {
    fn from_iter<I: IntoIterator<Item = Offload>>(offloads: I) -> Self {
        offloads.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("off");
        }
        for (index, offload) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(offload.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offloads({self})")
    }
}

/// What an offload of a dataplane is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OffloadState {
    /// Made use of wherever a device and its traffic allow it.
    On,
    /// Switched off.
    Off,
    /// Wanted, but it does not work here, for this reason.
    Unavailable(String),
    /// Wanted, but it failed with this error while frames were forwarded, and is out of use until it is switched on
    /// again; the frames went the slower way.
    Failed(String),
}

impl fmt::Display for OffloadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Off => f.write_str("off"),
            Self::Unavailable(why) => write!(f, "not available: {why}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// One offload of a dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffloadInfo {
    /// Which.
    pub offload: Offload,
    /// What it is doing.
    pub state: OffloadState,
    /// How often it has failed while frames were forwarded, since the start.
    pub failures: u64,
}

/// A text that is no set of offloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOffloadsError {
    word: String,
}

impl fmt::Display for ParseOffloadsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no offload; allowed: auto, off", self.word)?;
        for offload in Offload::ALL {
            write!(f, ", {offload}")?;
        }
        f.write_str(", and each of these with '-' in front after auto")
    }
}

impl std::error::Error for ParseOffloadsError {}

impl FromStr for Offloads {
    type Err = ParseOffloadsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::NONE;
        for (index, word) in text.split(',').map(str::trim).enumerate() {
            let named = |name: &str| Offload::ALL.iter().copied().find(|o| o.name() == name);
            let changed = match (word, word.strip_prefix('-')) {
                ("auto", _) if index == 0 => Some(Self::ALL),
                ("off", _) if text.trim() == word => Some(Self::NONE),
                (_, Some(name)) if index > 0 => named(name).map(|offload| set.without(offload)),
                (name, _) => named(name).map(|offload| set.with(offload)),
            };
            set = changed.ok_or_else(|| ParseOffloadsError { word: word.to_owned() })?;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_the_trip_through_text() {
        for bits in 0..=Offloads::ALL.0 {
            let set = Offloads(bits);
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(set.iter().collect::<Offloads>(), set);
            let left_out: String =
                Offloads::ALL.minus(set).iter().map(|o| format!(",-{o}")).collect();
            assert_eq!(format!("auto{left_out}").parse(), Ok(set));
        }
        assert_eq!("auto".parse(), Ok(Offloads::ALL));
        let without = Offloads::ALL.without(Offload::Uso).without(Offload::UdpGro);
        assert_eq!("auto, -uso,-udp-gro".parse(), Ok(without));
        assert_eq!("tso,checksum".parse::<Offloads>().unwrap().iter().count(), 2);
    }

    #[test]
    fn what_is_no_set_is_refused_with_what_would_be() {
        for text in ["", "on", "-uso", "tso,auto", "tso,off", "auto,-", "auto,,tso", "TSO"] {
            let error = text.parse::<Offloads>().unwrap_err().to_string();
            assert!(error.contains("udp-gso"), "{text}: {error}");
        }
    }
}
