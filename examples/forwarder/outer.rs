//! What outer headers are to say, as it is written in arguments and files.

use std::ops::RangeInclusive;

use overplane::{DontFragment, Dscp, Ecn, Ttl, ZeroChecksums};

/// The allowed values of each, for messages.
pub const ECN: &str = "\"normal\", \"compatibility\" or \"off\"";
pub const DSCP: &str = "0 to 63, or \"inherit\"";
pub const TTL: &str = "1 to 255, \"system\" or \"inherit\"";

pub const PORT_RANGE: &str = "\"host\", or FIRST-LAST as in 49152-65535";
pub const DONT_FRAGMENT: &str = "\"set\", \"unset\" or \"inherit\"";
pub const ZERO_CHECKSUMS: &str =
    "\"none\", or of send-v4, send-v6, accept-v6 those wanted, joined by commas";

/// Source ports; `None` for the host's range of ephemeral ports.
pub type PortRange = Option<RangeInclusive<u16>>;

pub fn port_range(text: &str) -> Option<PortRange> {
    if text == "host" {
        return Some(None);
    }
    let (first, last) = text.split_once('-')?;
    let range = first.parse().ok().filter(|first| *first > 0)?..=last.parse().ok()?;
    (!range.is_empty()).then_some(Some(range))
}

pub fn dont_fragment(text: &str) -> Option<DontFragment> {
    match text {
        "set" => Some(DontFragment::Set),
        "unset" => Some(DontFragment::Unset),
        "inherit" => Some(DontFragment::Inherit),
        _ => None,
    }
}

pub fn zero_checksums(text: &str) -> Option<ZeroChecksums> {
    let mut set = ZeroChecksums::default();
    for name in text.split(',').filter(|_| text != "none") {
        match name {
            "send-v4" => set.send_v4 = true,
            "send-v6" => set.send_v6 = true,
            "accept-v6" => set.accept_v6 = true,
            _ => return None,
        }
    }
    Some(set)
}

pub fn ecn(text: &str) -> Option<Ecn> {
    match text {
        "normal" => Some(Ecn::Normal),
        "compatibility" => Some(Ecn::Compatibility),
        "off" => Some(Ecn::Off),
        _ => None,
    }
}

pub fn dscp(text: &str) -> Option<Dscp> {
    match text {
        "inherit" => Some(Dscp::Inherit),
        _ => text.parse().ok().filter(|dscp| *dscp < 64).map(Dscp::Fixed),
    }
}

pub fn ttl(text: &str) -> Option<Ttl> {
    match text {
        "system" => Some(Ttl::System),
        "inherit" => Some(Ttl::Inherit),
        _ => text.parse().ok().filter(|ttl| *ttl > 0).map(Ttl::Fixed),
    }
}
