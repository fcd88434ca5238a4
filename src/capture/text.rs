//! Filters as text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::drop_reason::DropReason;
use crate::fib::Prefix;

use super::{CaptureFilter, Fate, FateFilter};

/// Text that is no filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFilterError(String);

impl ParseFilterError {
    fn value(key: &str, value: &str, allowed: impl fmt::Display) -> Self {
        Self(format!("{key}: {value:?} is not allowed; allowed: {allowed}"))
    }
}

impl fmt::Display for ParseFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseFilterError {}

/// The names of all fates, for people.
struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = Fate::OTHERS.into_iter().map(Fate::name);
        let reasons = DropReason::ALL.iter().map(|reason| reason.name());
        for name in others.chain(reasons) {
            write!(f, "{name}, ")?;
        }
        f.write_str("or dropped for every drop")
    }
}

impl FromStr for FateFilter {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let dropped = DropReason::ALL.iter().map(|reason| Fate::Dropped(*reason));
        let mut all = Fate::OTHERS.into_iter().chain(dropped);
        match text {
            "dropped" => Ok(Self::Dropped),
            _ => match all.find(|fate| fate.name() == text) {
                Some(fate) => Ok(Self::Is(fate)),
                None => Err(ParseFilterError::value("fate", text, Names)),
            },
        }
    }
}

impl fmt::Display for FateFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Is(fate) => fate.name(),
            Self::Dropped => "dropped",
        })
    }
}

/// A prefix, or an address alone.
fn net(text: &str) -> Option<Prefix> {
    match text.parse::<IpAddr>() {
        Ok(address) => Prefix::new(address, if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => text.parse().ok(),
    }
}

impl FromStr for CaptureFilter {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut filter = Self::default();
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        for word in words.filter(|word| !word.is_empty()) {
            let Some((key, value)) = word.split_once('=') else {
                return Err(ParseFilterError(format!("{word:?}: expected KEY=VALUE; {KEYS}")));
            };
            match key {
                "mac" => set(&mut filter.mac, word, value.parse().ok(), "a MAC address")?,
                "net" => set(&mut filter.net, word, net(value), "an IP address or ADDRESS/LENGTH")?,
                "vni" => set(&mut filter.vni, word, value.parse().ok(), "0 to 16777215")?,
                "udp_port" => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    set(&mut filter.udp_port, word, number, "1 to 65535")?;
                }
                "port" => {
                    let name = Some(value.to_owned()).filter(|name| !name.is_empty());
                    set(&mut filter.port, word, name, "the name of a device")?;
                }
                "vtep" => set(&mut filter.vtep, word, value.parse().ok(), "an IP address")?,
                "fate" => set(&mut filter.fate, word, Some(value.parse()?), "")?,
                _ => return Err(ParseFilterError(format!("{word:?}: unknown key; {KEYS}"))),
            }
        }
        Ok(filter)
    }
}

const KEYS: &str = "allowed keys: mac, net, vni, udp_port, port, vtep, fate";

/// Sets what the word `KEY=VALUE` sets, once.
fn set<T>(
    place: &mut Option<T>,
    word: &str,
    value: Option<T>,
    allowed: &str,
) -> Result<(), ParseFilterError> {
    let (key, text) = word.split_once('=').unwrap_or((word, ""));
    let value = value.ok_or_else(|| ParseFilterError::value(key, text, allowed))?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => {
            Err(ParseFilterError(format!("{key} is given twice; all that is given must hold")))
        }
    }
}

impl fmt::Display for CaptureFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mac, net, vni, udp_port, port, vtep, fate } = self;
        let words: [(&str, Option<&dyn fmt::Display>); 7] = [
            ("mac", mac.as_ref().map(|it| it as _)),
            ("net", net.as_ref().map(|it| it as _)),
            ("vni", vni.as_ref().map(|it| it as _)),
            ("udp_port", udp_port.as_ref().map(|it| it as _)),
            ("port", port.as_ref().map(|it| it as _)),
            ("vtep", vtep.as_ref().map(|it| it as _)),
            ("fate", fate.as_ref().map(|it| it as _)),
        ];
        let mut separator = "";
        for (key, value) in words {
            if let Some(value) = value {
                write!(f, "{separator}{key}={value}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_survive_the_trip_through_text() {
        let all = "mac=02:00:00:00:00:01,net=10.8.0.0/24,vni=42,udp_port=4789,port=ovl0,vtep=fd09::2,fate=no_route";
        for text in ["", all, "fate=dropped", "fate=flooded", "net=fd08::/16,vni=0"] {
            let filter: CaptureFilter = text.parse().unwrap();
            assert_eq!(filter.to_string(), text);
            let spaced = format!(" {} ", text.replace(',', "  "));
            assert_eq!(spaced.parse(), Ok(filter), "{spaced:?}");
        }
        let all_keys: CaptureFilter = all.parse().unwrap();
        assert!(all_keys.mac.is_some() && all_keys.fate.is_some());
        let host: CaptureFilter = "net=10.8.0.1".parse().unwrap();
        assert_eq!(host.net, Prefix::new([10, 8, 0, 1].into(), 32));
        for reason in DropReason::ALL {
            assert_eq!(reason.name().parse(), Ok(FateFilter::Is(Fate::Dropped(*reason))));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_what_would_be() {
        for (text, says) in [
            ("mac", "\"mac\": expected KEY=VALUE; allowed keys: mac, net,"),
            ("host=10.8.0.1", "unknown key; allowed keys: mac, net, vni, udp_port"),
            ("mac=2", "mac: \"2\" is not allowed; allowed: a MAC address"),
            ("net=10.8.0.0/33", "net: \"10.8.0.0/33\" is not allowed; allowed: an IP address or"),
            ("vni=16777216", "vni: \"16777216\" is not allowed; allowed: 0 to 16777215"),
            ("udp_port=0", "udp_port: \"0\" is not allowed; allowed: 1 to 65535"),
            ("port=", "port: \"\" is not allowed; allowed: the name of a device"),
            ("vtep=10.9.0.2:4789", "vtep: \"10.9.0.2:4789\" is not allowed; allowed: an IP"),
            ("fate=lost", "fate: \"lost\" is not allowed; allowed: forwarded, flooded,"),
            ("fate=", "port_failed, or dropped for every drop"),
            ("vni=1,vni=1", "vni is given twice"),
        ] {
            let error = text.parse::<CaptureFilter>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
