//! Entries of listings as JSON, with the names that people gave.

use std::time::Duration;

use overplane::{
    Control, Destination, FdbEntry, GroupId, Kind, NextHop, OffloadInfo, OffloadState, Origin,
    PortInfo, Route, SegmentId, SegmentInfo, Stats, VtepStats,
};
use serde_json::{Value, json};

use crate::report;

/// The devices of ports, to name them by.
pub struct Devices(Vec<PortInfo>);

impl Devices {
    pub fn of(control: &Control) -> Self {
        Self(control.ports())
    }

    /// The VTEP and the device of a destination; one of them is null.
    fn place(&self, at: Destination) -> [Value; 2] {
        match at {
            Destination::Vtep(vtep) => [vtep.to_string().into(), Value::Null],
            Destination::Port(id) => {
                let known = self.0.iter().find(|port| port.id == id);
                [Value::Null, known.map(|port| port.name.as_str()).into()]
            }
        }
    }

    pub fn fdb(&self, segment: SegmentId, entry: &FdbEntry) -> Value {
        let [vtep, port] = self.place(entry.destination);
        let origin = match entry.origin {
            Origin::Static => "static",
            Origin::Extern => "extern",
            Origin::Learned => "learned",
        };
        json!({
            "segment": report::name(segment),
            "mac": entry.mac.to_string(),
            "vtep": vtep,
            "port": port,
            "vni": entry.vni.map(|vni| vni.get()),
            "origin": origin,
            "age": entry.age.map(|age| age.as_secs()),
        })
    }

    /// A route; `groups` says who the members of a group are.
    pub fn route(
        &self,
        segment: SegmentId,
        route: &Route,
        groups: &dyn Fn(GroupId) -> Vec<(Destination, u16)>,
    ) -> Value {
        let to = |destination: Destination, weight: u16| {
            let [vtep, port] = self.place(destination);
            json!({ "vtep": vtep, "port": port, "weight": weight })
        };
        let (kind, via) = match route.next_hop {
            NextHop::To(destination) => ("unicast", vec![to(destination, 1)]),
            NextHop::Group(id) => {
                let members = groups(id).into_iter();
                ("unicast", members.map(|(destination, weight)| to(destination, weight)).collect())
            }
            NextHop::Blackhole => ("blackhole", Vec::new()),
            NextHop::Unreachable => ("unreachable", Vec::new()),
            NextHop::Local => ("local", Vec::new()),
            _ => ("other", Vec::new()),
        };
        json!({
            "segment": report::name(segment),
            "prefix": route.prefix.to_string(),
            "type": kind,
            "via": via,
        })
    }

    pub fn segment(&self, info: &SegmentInfo, stats: &Stats) -> Value {
        let counted = stats.segments.iter().find(|stats| stats.id == info.id);
        let dropped = counted.map_or(0, |stats| stats.drops.iter().map(|(_, n)| n).sum::<u64>());
        let ports = self.0.iter().filter(|port| port.segment == info.id);
        let addresses = |of: &[std::net::SocketAddr]| -> Vec<String> {
            of.iter().map(ToString::to_string).collect()
        };
        json!({
            "segment": report::name(info.id),
            "kind": match info.kind {
                Kind::Bridge(_) => "bridge",
                Kind::Routed => "routed",
                Kind::RoutedVxlan { .. } => "routed_vxlan",
            },
            "mtu": info.mtu,
            "open": info.open,
            "ports": ports.map(|port| port.name.as_str()).collect::<Vec<_>>(),
            "peers": addresses(&info.peers),
            "flood": addresses(&info.flood),
            "learned": counted.map(|stats| stats.learned),
            "fdb_limit": counted.map(|stats| stats.fdb_limit),
            "traffic": counted.map(|stats| report::traffic(&stats.traffic)),
            "dropped": dropped,
        })
    }

    pub fn port(&self, info: &PortInfo, stats: &Stats) -> Value {
        let counted = stats.ports.iter().find(|stats| stats.id == info.id);
        json!({
            "device": info.name,
            "segment": report::name(info.segment),
            "offload": info.offload,
            "mac": info.options.mac.map(|mac| mac.to_string()),
            "traffic": counted.map(|stats| report::traffic(&stats.traffic)),
        })
    }
}

/// A VTEP with what is known of the path there; `segments` are those that name it.
pub fn vtep(stats: &VtepStats, segments: &[SegmentInfo]) -> Value {
    let naming = segments.iter().filter(|info| info.peers.contains(&stats.address));
    json!({
        "vtep": stats.address.to_string(),
        "segments": naming.map(|info| report::name(info.id)).collect::<Vec<_>>(),
        "path_mtu": stats.path.limit(),
        "round_trip_us": stats
            .probe
            .and_then(|probe| probe.round_trip)
            .map(|time: Duration| time.as_micros() as u64),
        "black_holes": stats.probe.map(|probe| probe.black_holes),
        "traffic": report::traffic(&stats.traffic),
    })
}

pub fn offload(info: &OffloadInfo) -> Value {
    let state = match &info.state {
        OffloadState::On => "on",
        OffloadState::Off => "off",
        OffloadState::Unavailable(_) => "unavailable",
        OffloadState::Failed(_) => "failed",
        _ => "other",
    };
    json!({
        "offload": info.offload.to_string(),
        "state": state,
        "why": match &info.state {
            OffloadState::Unavailable(why) | OffloadState::Failed(why) => Some(why),
            _ => None,
        },
        "failures": info.failures,
    })
}
