//! How things are named in requests: as text, read in one place for the command line and the socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use overplane::{SegmentId, Vni};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Something that is written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: FromStr<Err: fmt::Display>> FromStr for Text<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| error.to_string())
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?}: {error}")))
    }
}

/// A segment: by its VNI, its UDP port, or both where one does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentName {
    vni: Option<Vni>,
    udp_port: Option<u16>,
}

/// What is allowed, for messages.
const SEGMENT: &str = "allowed: VNI, VNI@PORT, or udp:PORT for IP in UDP";

impl SegmentName {
    /// Whether it names a segment.
    pub fn names(self, segment: SegmentId) -> bool {
        self.vni == segment.vni && self.udp_port.is_none_or(|port| port == segment.udp_port)
    }
}

impl FromStr for SegmentName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0).ok_or(SEGMENT);
        if let Some(udp_port) = text.strip_prefix("udp:") {
            return Ok(Self { vni: None, udp_port: Some(port(udp_port)?) });
        }
        let (vni, udp_port) = match text.split_once('@') {
            Some((vni, udp_port)) => (vni, Some(port(udp_port)?)),
            None => (text, None),
        };
        Ok(Self { vni: Some(vni.parse().map_err(|_| SEGMENT)?), udp_port })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vni, self.udp_port) {
            (Some(vni), Some(port)) => write!(f, "{vni}@{port}"),
            (Some(vni), None) => vni.fmt(f),
            (None, port) => write!(f, "udp:{}", port.unwrap_or(0)),
        }
    }
}

impl From<SegmentId> for SegmentName {
    fn from(id: SegmentId) -> Self {
        Self { vni: id.vni, udp_port: Some(id.udp_port) }
    }
}

/// A VTEP: its underlay address, at the segment's UDP port unless it says another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtepName {
    ip: IpAddr,
    port: Option<u16>,
}

impl VtepName {
    /// Its address in a segment.
    pub fn at(self, segment: SegmentId) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(segment.udp_port))
    }
}

impl FromStr for VtepName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let whole: SocketAddr = text.parse().map_err(|_| "allowed: ADDRESS or ADDRESS:PORT")?;
        Ok(Self { ip: whole.ip(), port: Some(whole.port()) })
    }
}

impl fmt::Display for VtepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named_by_what_tells_them_apart() {
        let id = |vni, udp_port| SegmentId { udp_port, vni: Vni::new(vni).ok() };
        for (text, named, not) in [
            ("42", id(42, 4789), id(43, 4789)),
            ("42@8472", id(42, 8472), id(42, 4789)),
            ("udp:8285", SegmentId { udp_port: 8285, vni: None }, id(8285, 8285)),
        ] {
            let name: SegmentName = text.parse().unwrap();
            assert!(name.names(named) && !name.names(not), "{text}");
            assert_eq!(name.to_string(), text);
        }
        for wrong in ["", "x", "42@", "42@0", "42@x", "udp:", "udp:0", "16777216"] {
            assert!(wrong.parse::<SegmentName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vtep_is_at_the_port_of_its_segment() {
        let segment = SegmentId { udp_port: 8472, vni: Vni::new(1).ok() };
        let at = |text: &str| text.parse::<VtepName>().map(|name| name.at(segment).to_string());
        assert_eq!(at("10.9.0.2").unwrap(), "10.9.0.2:8472");
        assert_eq!(at("[fd00::2]:4789").unwrap(), "[fd00::2]:4789");
        assert!(at("host").is_err());
    }
}
