//! How arguments are read: with what is allowed in the message about one that is not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::{MacAddr, Prefix, VlanMode, VlanSet};

use crate::failure::Failure;
use crate::plan::{self, DEVICE};
use crate::values::{self, Numbers, Rate};

/// Reads a value, or says what is allowed.
pub fn word<T>(
    read: fn(&str) -> Option<T>,
    allowed: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| read(text).ok_or_else(|| format!("allowed: {allowed}"))
}

/// Reads a number of a range, all of which `T` holds.
pub fn number<T: TryFrom<u64>>(range: Numbers) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = values::number(text, &range).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("allowed: {} to {}", range.start(), range.end()))
    }
}

/// Reads a time in whole seconds.
pub fn seconds(range: Numbers) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let number = number(range);
    move |text| number(text).map(Duration::from_secs)
}

pub fn local(text: &str) -> Result<IpAddr, String> {
    word(values::local, values::LOCAL)(text)
}

pub fn device(text: &str) -> Result<String, String> {
    let allowed = plan::is_device_name(text);
    allowed.then(|| text.to_owned()).ok_or_else(|| format!("allowed: {DEVICE}"))
}

pub fn mac(text: &str) -> Result<MacAddr, String> {
    word(plan::mac, plan::MAC)(text)
}

/// Reads a rate of frames, with a burst if that is not to follow from it.
pub fn rate(text: &str) -> Result<Rate, String> {
    let rate = match text.split_once('/') {
        None => values::rate(text),
        Some((per_second, burst)) => {
            let number = |text, range| values::number(text, &range).map(|number| number as u32);
            let both = number(per_second, values::PER_SECOND).zip(number(burst, values::BURST));
            both.map(|(per_second, burst)| Some(RateLimit { per_second, burst }))
        }
    };
    rate.ok_or_else(|| {
        let (second, burst) = (values::PER_SECOND.end().to_owned(), values::BURST.end().to_owned());
        format!("allowed: frames a second, 1 to {second}, or these and \"/\" and a burst of 1 to {burst}, or \"none\"")
    })
}

/// Reads what is done with VLAN tags.
pub fn vlan(text: &str) -> Result<VlanMode, String> {
    match text {
        "transparent" => return Ok(VlanMode::Transparent),
        "untagged" => return Ok(VlanMode::Untagged),
        _ => {}
    }
    let mut vlans = VlanSet::default();
    match text.split(',').try_for_each(|text| values::add_vlans(&mut vlans, text)) {
        Some(()) => Ok(VlanMode::Only { vlans, pvid: None }),
        None => Err(format!(
            "allowed: \"transparent\", \"untagged\", or VLANs joined by commas, each {}",
            values::VLAN_RANGE
        )),
    }
}

pub fn route(text: &str) -> Result<(Prefix, String), String> {
    let (prefix, next_hop) =
        text.split_once('=').ok_or("allowed: PREFIX=ADDRESS or PREFIX=ADDRESS:PORT")?;
    Ok((prefix.parse().map_err(|e: overplane::ParsePrefixError| e.to_string())?, next_hop.into()))
}

pub fn lease(text: &str) -> Result<(Prefix, String, MacAddr), String> {
    let (prefix, (next_hop, address)) = text
        .split_once('=')
        .and_then(|(prefix, rest)| Some((prefix, rest.split_once(',')?)))
        .ok_or("allowed: PREFIX=ADDRESS,MAC or PREFIX=ADDRESS:PORT,MAC")?;
    let prefix = prefix.parse().map_err(|e: overplane::ParsePrefixError| e.to_string())?;
    Ok((prefix, next_hop.into(), mac(address)?))
}

/// Reads the VTEP in an argument, whose default port is another argument.
pub fn vtep(
    argument: &str,
    whole: &str,
    text: &str,
    udp_port: u16,
    locals: &[IpAddr],
) -> Result<SocketAddr, Failure> {
    let (allowed, read) = match argument {
        "--remote" => (plan::FLOODED, plan::flooded as fn(&str, u16) -> _),
        _ => (plan::VTEP, plan::vtep as _),
    };
    let Some(vtep) = read(text, udp_port) else {
        return Err(Failure::Usage(format!(
            "{argument} {whole}: {text:?} is not allowed; allowed: {allowed}"
        )));
    };
    match plan::vtep_conflict(locals, udp_port, vtep) {
        Some(conflict) => Err(Failure::Usage(format!("{argument} {whole}: {conflict}"))),
        None => Ok(vtep),
    }
}

/// Adds what may be given once only.
pub fn add<T: PartialEq>(
    list: &mut Vec<T>,
    thing: T,
    argument: &str,
    text: &str,
) -> Result<(), Failure> {
    if list.contains(&thing) {
        return Err(Failure::Usage(format!("{argument}: {text} is given twice")));
    }
    list.push(thing);
    Ok(())
}
