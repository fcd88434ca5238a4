//! What outer headers are to say, as it is written in arguments and files.

use overplane::{Dscp, Ecn, Ttl};

/// The allowed values of each, for messages.
pub const ECN: &str = "\"normal\", \"compatibility\" or \"off\"";
pub const DSCP: &str = "0 to 63, or \"inherit\"";
pub const TTL: &str = "1 to 255, \"system\" or \"inherit\"";

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
