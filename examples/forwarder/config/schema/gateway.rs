//! Reading of `[segment.port.gateway]`.

use std::net::IpAddr;

use overplane::Gateway;
use overplane::limits::MAX_GATEWAY_ADDRESSES;

use crate::config::reader::{Problems, Section};
use crate::plan;

/// Reads the router that the host behind a TAP port of a routed segment sees; none makes the port a TUN.
pub fn read(port: &Section<'_>, problems: &mut Problems) -> Option<Gateway> {
    let section = port.get("gateway").and_then(|item| item.section(problems))?;
    section.only(&["mac", "addresses", "answer_all", "host"], &[], "", problems);
    let mut gateway = Gateway::default();
    let mac = |key, problems: &mut Problems| section.get(key)?.text(plan::MAC, plan::mac, problems);
    gateway.mac = mac("mac", problems).unwrap_or(gateway.mac);
    gateway.host = mac("host", problems);
    if let Some(list) = section.get("addresses") {
        let allowed = format!("a list of up to {MAX_GATEWAY_ADDRESSES} addresses of the gateway");
        let items = list.list(&allowed, problems);
        if items.len() > MAX_GATEWAY_ADDRESSES {
            list.refuse(&allowed, problems);
        }
        let read = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| plan::is_host(*ip));
        let address = "an address of one host, as in 169.254.1.1";
        let addresses = items.iter().filter_map(|item| item.text(address, read, problems));
        gateway.addresses = addresses.collect();
    }
    if let Some(all) = section.get("answer_all").and_then(|item| item.boolean(problems)) {
        gateway.answer_all = all;
    }
    Some(gateway)
}
