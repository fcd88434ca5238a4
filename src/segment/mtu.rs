//! What a segment does about packets that are too large.

use crate::Error;
use crate::mtu::MIN_MSS;

/// How large the segments of TCP connections through an overlay may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// As the hosts like; they are told of what is too large as everybody is.
    #[default]
    Off,
    /// As the path to the VTEP carries.
    ToMtu,
    /// The same, and at most so many bytes of payload: [`mtu::MIN_MSS`](crate::mtu::MIN_MSS) or more.
    To(u16),
}

impl MssClamp {
    /// The largest that is let through, 0 for no clamping.
    pub(crate) fn most(self) -> u16 {
        match self {
            Self::Off => 0,
            Self::ToMtu => u16::MAX,
            Self::To(most) => most,
        }
    }
}

/// What a segment does about packets that are too large for it or for the path to their VTEP.
///
/// How large they may be is [`Segment::mtu`](crate::Segment::mtu).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MtuOptions {
    /// Tell the sender of a packet that is too large for a VTEP how large it may be: with ICMP "fragmentation needed"
    /// about IPv4 packets that must not be fragmented (RFC 1191 §4), with ICMPv6 "packet too big" about IPv6 ones
    /// (RFC 4443 §3.2); default `true`.
    ///
    /// The error comes from [`Segment::addresses`](crate::Segment::addresses), or else from where the packet was going,
    /// and in a bridge segment from the MAC address it was going to. Nobody is told of what was flooded, and nobody more
    /// often than 100 times a second and worker, with bursts of 50, all ICMP errors together.
    pub too_big_errors: bool,
    /// Lower the maximum segment size that hosts tell each other when they open TCP connections, both ways, for those who
    /// never hear of errors; default [`MssClamp::Off`]. It changes packets, and with them breaks what authenticates
    /// their headers (RFC 2385, RFC 5925).
    pub clamp_mss: MssClamp,
    /// Probe the paths to the segment's VTEPs, so that one is found on which large packets vanish without a word
    /// (RFC 8899); default `false`. For segments in VXLAN.
    ///
    /// VTEPs that do not answer, as those of other implementations, are sent a small packet now and then, which they drop,
    /// and nothing changes for them. What is verified is [`PathMtu::verified`](crate::PathMtu); when probes are sent is said
    /// by `Config::probing`.
    pub probe: bool,
    /// Answer the probes of the segment's VTEPs, with packets no larger than the smallest frame; default `true`.
    pub answer_probes: bool,
}

impl MtuOptions {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.clamp_mss {
            MssClamp::To(most) if most < MIN_MSS => {
                Err(Error::invalid("maximum segment size", most.to_string(), "48 to 65535 bytes"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for MtuOptions {
    fn default() -> Self {
        Self { too_big_errors: true, clamp_mss: MssClamp::Off, probe: false, answer_probes: true }
    }
}
