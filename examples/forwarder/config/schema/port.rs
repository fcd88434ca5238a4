//! Reading of `[[segment.port]]`: devices with their addresses and options.

use overplane::{PortOptions, VlanMode, VlanSet};
use overplane_lab::Cidr;

use super::gateway;
use super::limits;
use super::segment::Reader;
use crate::config::reader::{Item, Once, Problems, Section};
use crate::plan::{self, DEVICE, SegmentPlan};
use crate::values;

const COMMON: &[&str] = &["device", "addresses"];
const BRIDGE: &[&str] = &[
    "isolated",
    "group",
    "mac",
    "storm",
    "vlan",
    "pvid",
    "hairpin",
    "learning",
    "flood_unknown_unicast",
    "flood_multicast",
    "flood_broadcast",
    "fast_leave",
    "multicast_routers",
];

const ROUTED: &[&str] = &["gateway"];

const ADDRESS: &str = "ADDRESS/LENGTH as in 10.8.0.1/24";
const ADDRESSES: &str = "a list of addresses, each ADDRESS/LENGTH as in 10.8.0.1/24";

impl Reader<'_> {
    /// Reads the ports of a segment.
    pub fn ports(
        &mut self,
        section: &Section<'_>,
        planned: &mut SegmentPlan,
        problems: &mut Problems,
    ) {
        let allowed = "a list of tables, each under [[segment.port]]";
        let bridge = planned.segment.kind.is_ethernet();
        let Some(list) = section.get("port") else { return };
        let mut addresses_seen = Once::new();
        for item in list.list(allowed, problems) {
            let Some(port) = item.section(problems) else { continue };
            if bridge {
                port.only(&[COMMON, BRIDGE].concat(), ROUTED, "a bridge segment", problems);
            } else {
                port.only(&[COMMON, ROUTED].concat(), BRIDGE, "a routed segment", problems);
            }
            let mut options = options(&port, problems);
            options.gateway = gateway::read(&port, problems);
            let mut addresses = Vec::new();
            for item in
                port.get("addresses").map_or(Vec::new(), |list| list.list(ADDRESSES, problems))
            {
                let mtu = planned.segment.mtu;
                if let Some(address) = self.address(&item, mtu, problems)
                    && addresses_seen.is_first(address.ip, &item, problems)
                {
                    addresses.push(address);
                }
            }
            let Some(item) = port.need("device", DEVICE, problems) else { continue };
            let name = |text: &str| plan::is_device_name(text).then(|| text.to_owned());
            let Some(device) = item.text(DEVICE, name, problems) else { continue };
            if self.devices.is_first(device.clone(), &item, problems) {
                planned.add_port(device, addresses, options);
            }
        }
    }

    fn address(&self, item: &Item<'_>, mtu: Option<u32>, problems: &mut Problems) -> Option<Cidr> {
        let address = item.parse::<Cidr>(ADDRESS, problems)?;
        if let Some(why) = plan::address_conflict(&self.locals, address.ip) {
            item.problem(format_args!("{item}: {why}"), problems);
            return None;
        }
        if let Some(why) = plan::mtu_conflict("segment.mtu", mtu, address.ip) {
            item.problem(format_args!("{item}: {why}"), problems);
        }
        Some(address)
    }
}

/// The allowed VLAN modes, for messages.
const VLAN: &str =
    "\"transparent\", \"untagged\" or a list of VLANs, each 1 to 4094 or \"FIRST-LAST\"";

/// Reads what a port does with VLAN tags.
fn vlan(port: &Section<'_>, problems: &mut Problems) -> VlanMode {
    let pvid = port.get("pvid").and_then(|item| item.integer(values::VID, problems));
    let pvid = pvid.map(|vid| vid as u16);
    let mode = port.get("vlan").map(|item| match item.as_text() {
        Some("transparent") => VlanMode::Transparent,
        Some("untagged") => VlanMode::Untagged,
        _ => {
            let mut vlans = VlanSet::default();
            for item in item.list(VLAN, problems) {
                let add = |text: &str| values::add_vlans(&mut vlans, text);
                item.word(values::VLAN_RANGE, add, problems);
            }
            VlanMode::Only { vlans, pvid: None }
        }
    });
    values::vlan_mode(mode, pvid).unwrap_or_else(|| {
        port.problem(values::PVID, problems);
        VlanMode::Transparent
    })
}

/// Reads the options of a port of a bridge segment.
fn options(port: &Section<'_>, problems: &mut Problems) -> PortOptions {
    let mut options = PortOptions::default();
    for (key, option) in [
        ("isolated", &mut options.isolated),
        ("hairpin", &mut options.hairpin),
        ("learning", &mut options.learning),
        ("flood_unknown_unicast", &mut options.flood_unknown_unicast),
        ("flood_multicast", &mut options.flood_multicast),
        ("flood_broadcast", &mut options.flood_broadcast),
        ("fast_leave", &mut options.fast_leave),
        ("multicast_routers", &mut options.multicast_routers),
    ] {
        if let Some(value) = port.get(key).and_then(|item| item.boolean(problems)) {
            *option = value;
        }
    }
    options.storm = limits::storm(port, problems);
    options.vlan = vlan(port, problems);
    if let Some(item) = port.get("group")
        && let Some(group) = item.integer(values::HORIZON_GROUP, problems)
    {
        options.group = group as u8;
    }
    if let Some(item) = port.get("mac") {
        options.mac = item.text(plan::MAC, plan::mac, problems);
    }
    options
}
