//! Numbers and words as they are written in arguments and files: which are allowed, and how they are read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use overplane::limits::{
    MAX_AGEING, MAX_BURST, MAX_FDB_CAPACITY, MAX_FRAME, MAX_HORIZON_GROUP, MAX_MEMBERSHIPS,
    MAX_RATE, MAX_SLOTS, MAX_SNOOPED, MAX_VID, MAX_WORKERS,
};
use overplane::mtu::MIN_MSS;
use overplane::rate::RateLimit;
use overplane::wire::vxlan::ReservedBits;
use overplane::{MssClamp, VlanMode, VlanSet};

use crate::plan;
use crate::privileges::User;

/// The numbers that are allowed.
pub type Numbers = RangeInclusive<u64>;

pub const WORKERS: Numbers = 1..=MAX_WORKERS as u64;
pub const FDB_CAPACITY: Numbers = 1..=MAX_FDB_CAPACITY as u64;
pub const BATCH: Numbers = 1..=MAX_SLOTS as u64;
pub const SOURCE_PORTS: Numbers = 0..=64;
/// Socket buffers, in bytes.
pub const BUFFER: Numbers = 4096..=1 << 30;
/// In microseconds.
pub const SPIN: Numbers = 0..=10_000;
/// In seconds.
pub const PATH_MTU_EXPIRY: Numbers = 1..=86_400;

/// In seconds.
pub const PROBE_TIMEOUT: Numbers = 1..=60;
pub const MAX_PROBES: Numbers = 1..=10;
/// In seconds.
pub const PROBE_INTERVAL: Numbers = 1..=3600;
/// In seconds.
pub const PROBE_RAISE: Numbers = 1..=86_400;
/// In bytes.
pub const PROBE_BASE: Numbers = 552..=9000;

pub const MTU: Numbers = 68..=65_535;
pub const FDB_LIMIT: Numbers = 0..=MAX_FDB_CAPACITY as u64;
pub const HORIZON_GROUP: Numbers = 0..=MAX_HORIZON_GROUP as u64;
pub const LOOP_MOVES: Numbers = 0..=250;
/// In seconds.
pub const LOOP_TIME: Numbers = 1..=3600;
pub const NEIGHBOURS: Numbers = 0..=MAX_SNOOPED as u64;
pub const MEMBERSHIPS: Numbers = 0..=MAX_MEMBERSHIPS as u64;
/// In seconds.
pub const AGEING: Numbers = 1..=MAX_AGEING.as_secs();
pub const VID: Numbers = 1..=MAX_VID as u64;
pub const PER_SECOND: Numbers = 1..=MAX_RATE as u64;
pub const BURST: Numbers = 1..=MAX_BURST as u64;
const MSS: Numbers = MIN_MSS as u64..=u16::MAX as u64;

/// Reads a number, in decimal or after `0x` in hexadecimal.
pub fn number(text: &str, range: &Numbers) -> Option<u64> {
    let number = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        _ => text.parse().ok(),
    };
    number.filter(|number| range.contains(number))
}

pub const LOCAL: &str = "a unicast address of this node";

pub fn local(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip| plan::is_unicast(*ip))
}

pub const LISTENER: &str =
    "ADDRESS:PORT, as in 127.0.0.1:9472 or [::1]:9472; port 0 is any that is free";

pub fn listener(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| !address.ip().is_multicast())
}

pub const RESERVED_BITS: &str = "\"ignore\" or \"strict\"";

pub fn reserved_bits(text: &str) -> Option<ReservedBits> {
    match text {
        "ignore" => Some(ReservedBits::Ignore),
        "strict" => Some(ReservedBits::Strict),
        _ => None,
    }
}

/// When what is learned is forgotten; `None` for never.
pub type Ageing = Option<Duration>;

pub const AGEING_OR_NEVER: &str = "1 to 262144 seconds, or \"never\"";

pub fn ageing(text: &str) -> Option<Ageing> {
    match text {
        "never" => Some(None),
        _ => number(text, &AGEING).map(|seconds| Some(Duration::from_secs(seconds))),
    }
}

/// How many may be behind one port or VTEP; `None` for any number.
pub type PortLimit = Option<usize>;

pub const FDB_PORT_LIMIT: &str = "0 to 1048576, or \"none\"";

pub fn fdb_port_limit(text: &str) -> Option<PortLimit> {
    match text {
        "none" => Some(None),
        _ => number(text, &FDB_LIMIT).map(|limit| Some(limit as usize)),
    }
}

pub const CLAMP_MSS: &str = "\"off\", \"mtu\", or 48 to 65535 bytes";

pub fn clamp_mss(text: &str) -> Option<MssClamp> {
    match text {
        "off" => Some(MssClamp::Off),
        "mtu" => Some(MssClamp::ToMtu),
        _ => number(text, &MSS).map(|most| MssClamp::To(most as u16)),
    }
}

pub const GROUP_FWD_MASK: &str = "bits 3 to 15: 0 to 0xfff8";

/// Reads which group addresses are forwarded. Those that stay between neighbours whatever is wanted are spanning tree,
/// pause and link aggregation.
pub fn group_fwd_mask(text: &str) -> Option<u16> {
    number(text, &(0..=u16::MAX.into())).filter(|mask| mask & 7 == 0).map(|mask| mask as u16)
}

/// How many frames may be flooded; `None` for any number.
pub type Rate = Option<RateLimit>;

/// Reads frames a second; the burst follows from them.
pub fn rate(text: &str) -> Option<Rate> {
    match text {
        "none" => Some(None),
        _ => number(text, &PER_SECOND).map(|n| Some(RateLimit::new(n as u32))),
    }
}

pub const VLAN_RANGE: &str = "1 to 4094, or \"FIRST-LAST\"";

/// Adds a VLAN, or those from one to another.
pub fn add_vlans(vlans: &mut VlanSet, text: &str) -> Option<()> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let [first, last] = [first, last].map(|text| number(text.trim(), &VID).map(|vid| vid as u16));
    let range = first?..=last?;
    let some = !range.is_empty();
    range.for_each(|vid| _ = vlans.insert(vid));
    some.then_some(())
}

pub const PVID: &str = "pvid is not allowed here; allowed beside a list of VLANs, or alone";

/// What a port does with VLAN tags, if it is told a mode, a PVID or both; `None` for what does not go together.
pub fn vlan_mode(mode: Option<VlanMode>, pvid: Option<u16>) -> Option<VlanMode> {
    match (mode, pvid) {
        (mode, None) => Some(mode.unwrap_or_default()),
        (None, pvid) => Some(VlanMode::Only { vlans: VlanSet::default(), pvid }),
        (Some(VlanMode::Only { vlans, .. }), pvid) => Some(VlanMode::Only { vlans, pvid }),
        (Some(_), Some(_)) => None,
    }
}

pub const QUERIER_V4: &str = "an address of one host, as in 10.8.0.1";

pub fn querier_v4(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(|ip: &Ipv4Addr| plan::is_host((*ip).into()))
}

pub const QUERIER_V6: &str = "a link-local address, as in fe80::1";

pub fn querier_v6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().filter(Ipv6Addr::is_unicast_link_local)
}

/// Seconds between queries, where another querier counts as gone after `longest`.
pub fn query_interval(longest: Duration) -> Numbers {
    2..=longest.as_secs().clamp(3, 31_745) - 1
}

/// Seconds for the answers, with `interval` between queries.
pub fn response_interval(interval: Duration) -> Numbers {
    1..=interval.as_secs().clamp(2, 13) - 1
}

pub const USER: &str = "the name or number of a user, as in nobody or 65534";

pub fn user(text: &str) -> Option<User> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !":/,".contains(c);
    let allowed = !text.is_empty() && text.len() <= 255 && text.chars().all(plain);
    allowed.then(|| User::Named(text.into()))
}

pub const DIRECTORY: &str = "an absolute path, as in /run/overplane";

pub fn directory(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

/// Bytes of a frame that are captured.
pub const SNAP: Numbers = 1..=MAX_FRAME as u64;

pub const FILE: &str = "the path of a file";

pub fn file(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty())
}
