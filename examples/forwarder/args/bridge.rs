//! What a bridge segment and its devices are told.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clap::{ArgGroup, Args};
use overplane::{MacAddr, Neighbours, PortOptions, Querier, Segment, Snooping, VlanMode};

use super::read::{self, device, mac, number, seconds, word};
use crate::failure::Failure;
use crate::plan::SegmentPlan;
use crate::values::{self, Ageing, PortLimit, Rate};

/// How frames are forwarded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bridge")]
pub struct Bridge {
    /// Learn no MAC addresses from frames.
    #[arg(long)]
    no_learning: bool,
    /// Forget a learned MAC address that is silent for so many seconds: 1 to 262144, or never [default: 300].
    #[arg(long, value_name = "SECONDS", value_parser = word(values::ageing, values::AGEING_OR_NEVER))]
    ageing: Option<Ageing>,
    /// Learned MAC addresses at most [default: 8192].
    #[arg(long, value_name = "N", value_parser = number::<u32>(values::FDB_LIMIT))]
    fdb_limit: Option<u32>,
    /// The same behind one port or one VTEP: a number, or none [default: none].
    #[arg(long, value_name = "N", value_parser = word(values::fdb_port_limit, values::FDB_PORT_LIMIT))]
    fdb_port_limit: Option<PortLimit>,
    /// At a limit learn no more, instead of forgetting one of the port or VTEP that has the most.
    #[arg(long)]
    no_fdb_evict: bool,
    /// Split horizon group of the remotes, which exchange no frames: 1 to 31; 0: this node relays between them
    /// [default: 1].
    #[arg(long, value_name = "GROUP", value_parser = number::<u8>(values::HORIZON_GROUP))]
    vtep_group: Option<u8>,
    /// Which of 01:80:c2:00:00:00 to 0f are forwarded: bit N for the one that ends in N, bits 3 to 15, as in 0x4000
    /// [default: 0].
    #[arg(long, value_name = "MASK", value_parser = word(values::group_fwd_mask, values::GROUP_FWD_MASK))]
    group_fwd_mask: Option<u16>,
    /// Broadcast frames that are flooded at most: frames a second, or these with a burst as in 1000/100, or none
    /// [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    storm_broadcast: Option<Rate>,
    /// The same for multicast [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    storm_multicast: Option<Rate>,
    /// The same for frames to addresses that are not known [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    storm_unknown_unicast: Option<Rate>,
    /// A MAC address that would move more often than so in the window is held: 1 to 250; 0: none is [default: 5].
    #[arg(long, value_name = "N", value_parser = number::<u8>(values::LOOP_MOVES))]
    loops_moves: Option<u8>,
    /// That window: 1 to 3600 [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds(values::LOOP_TIME))]
    loops_window: Option<Duration>,
    /// For how long it is held: 1 to 3600 [default: 30].
    #[arg(long, value_name = "SECONDS", value_parser = seconds(values::LOOP_TIME))]
    loops_hold: Option<Duration>,
    /// Speak the group policy extension; its D bit keeps addresses from being learned.
    #[arg(long)]
    gbp: bool,
    /// Take every VNI on the UDP port.
    #[arg(long)]
    any_vni: bool,
}

impl Bridge {
    pub fn apply(self, segment: &mut Segment) {
        segment.learning = !self.no_learning;
        segment.ageing = self.ageing.unwrap_or(segment.ageing);
        segment.fdb_limit = self.fdb_limit.map_or(segment.fdb_limit, |limit| limit as usize);
        segment.fdb_port_limit = self.fdb_port_limit.unwrap_or(segment.fdb_port_limit);
        segment.fdb_evict = !self.no_fdb_evict;
        let scope = &mut segment.scope;
        scope.vtep_group = self.vtep_group.unwrap_or(scope.vtep_group);
        scope.group_fwd_mask = self.group_fwd_mask.unwrap_or(scope.group_fwd_mask);
        segment.storm.broadcast = self.storm_broadcast.flatten();
        segment.storm.multicast = self.storm_multicast.flatten();
        segment.storm.unknown_unicast = self.storm_unknown_unicast.flatten();
        let loops = &mut segment.loops;
        loops.moves = self.loops_moves.unwrap_or(loops.moves);
        loops.window = self.loops_window.unwrap_or(loops.window);
        loops.hold = self.loops_hold.unwrap_or(loops.hold);
        segment.header.gbp = self.gbp;
        segment.header.any_vni = self.any_vni;
    }
}

/// Whether ARP and neighbour discovery are answered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Neighbours")]
pub struct Suppression {
    /// Answer ARP and neighbour discovery for the hosts of other nodes, as far as they were heard of, instead of flooding.
    #[arg(long)]
    suppress: bool,
    /// Learned neighbours at most, 0 to 65536 [default: 1024].
    #[arg(long, value_name = "N", requires = "suppress", value_parser = number::<u32>(values::NEIGHBOURS))]
    neighbours_limit: Option<u32>,
    /// Forget a learned neighbour that is silent for so many seconds: 1 to 262144, or never [default: 300].
    #[arg(long, value_name = "SECONDS", requires = "suppress", value_parser = word(values::ageing, values::AGEING_OR_NEVER))]
    neighbours_ageing: Option<Ageing>,
}

impl Suppression {
    pub fn apply(self, neighbours: &mut Neighbours) {
        neighbours.suppress = self.suppress;
        neighbours.limit = self.neighbours_limit.map_or(neighbours.limit, |limit| limit as usize);
        neighbours.ageing = self.neighbours_ageing.unwrap_or(neighbours.ageing);
    }
}

/// Where multicast goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Multicast")]
#[command(group(ArgGroup::new("querier").args(["querier_v4", "querier_v6"]).multiple(true)))]
pub struct Multicast {
    /// Send multicast to the nodes and devices alone whose hosts have joined the group (IGMP, MLD).
    #[arg(long)]
    snoop: bool,
    /// Flood groups that nobody has joined, instead of sending them to multicast routers alone.
    #[arg(long, requires = "snoop")]
    snooping_flood_unregistered: bool,
    /// Forget a membership that is not reported again for so many seconds: 1 to 262144 [default: 260].
    #[arg(long, value_name = "SECONDS", requires = "snoop", value_parser = seconds(values::AGEING))]
    snooping_membership_interval: Option<Duration>,
    /// Flood multicast from so many seconds after the last query on, as nobody reports: 1 to 262144 [default: 255].
    #[arg(long, value_name = "SECONDS", requires = "snoop", value_parser = seconds(values::AGEING))]
    snooping_querier_interval: Option<Duration>,
    /// Learned memberships at most, 0 to 65536 [default: 8192].
    #[arg(long, value_name = "N", requires = "snoop", value_parser = number::<u32>(values::MEMBERSHIPS))]
    snooping_limit: Option<u32>,
    /// Ask who listens with IGMP, from this address, unless a router or another node with a lower address does.
    #[arg(long, value_name = "ADDRESS", requires = "snoop", value_parser = word(values::querier_v4, values::QUERIER_V4))]
    querier_v4: Option<Ipv4Addr>,
    /// The same with MLD, from this link-local address.
    #[arg(long, value_name = "ADDRESS", requires = "snoop", value_parser = word(values::querier_v6, values::QUERIER_V6))]
    querier_v6: Option<Ipv6Addr>,
    /// MAC address that queries come from [default: 06:51 and the last four bytes of the address].
    #[arg(long, value_name = "MAC", requires = "querier", value_parser = mac)]
    querier_mac: Option<MacAddr>,
    /// Time between queries, 2 to 31744 [default: 125].
    #[arg(long, value_name = "SECONDS", requires = "querier", value_parser = seconds(values::query_interval(Duration::MAX)))]
    querier_interval: Option<Duration>,
    /// Time for the answers, 1 to 12 [default: 10].
    #[arg(long, value_name = "SECONDS", requires = "querier", value_parser = seconds(values::response_interval(Duration::MAX)))]
    querier_response_interval: Option<Duration>,
}

impl Multicast {
    pub fn apply(self, snooping: &mut Snooping) -> Result<(), Failure> {
        snooping.enabled = self.snoop;
        snooping.flood_unregistered = self.snooping_flood_unregistered;
        let membership = self.snooping_membership_interval;
        snooping.membership_interval = membership.unwrap_or(snooping.membership_interval);
        let longest = self.snooping_querier_interval.unwrap_or(snooping.querier_interval);
        snooping.querier_interval = longest;
        snooping.limit = self.snooping_limit.map_or(snooping.limit, |limit| limit as usize);
        if self.querier_v4.is_none() && self.querier_v6.is_none() {
            return Ok(());
        }
        let mut querier = Querier::new(self.querier_v4, self.querier_v6);
        querier.mac = self.querier_mac;
        querier.interval = self.querier_interval.unwrap_or(querier.interval);
        querier.response_interval =
            self.querier_response_interval.unwrap_or(querier.response_interval);
        if querier.interval >= longest || querier.response_interval >= querier.interval {
            let [response, interval, longest] =
                [querier.response_interval, querier.interval, longest].map(|time| time.as_secs());
            return Err(Failure::Usage(format!(
                "--querier-response-interval {response}, --querier-interval {interval} and \
                 --snooping-querier-interval {longest} do not go together; allowed: each less than the next"
            )));
        }
        snooping.querier = Some(querier);
        Ok(())
    }
}

/// What its devices are told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Devices")]
pub struct Ports {
    /// Name of a further device, without addresses: for a bridge or a virtual machine; can be repeated. What is said
    /// below is said of all devices.
    #[arg(long, value_name = "NAME", value_parser = device)]
    add_dev: Vec<String>,
    /// No frames between the devices.
    #[arg(long)]
    isolated: bool,
    /// Frames may leave by the device they came from.
    #[arg(long)]
    hairpin: bool,
    /// Learn no MAC addresses from what the devices send.
    #[arg(long)]
    no_port_learning: bool,
    /// Flood the devices with no frames for addresses that are not known.
    #[arg(long)]
    no_flood_unknown_unicast: bool,
    /// Flood them with no multicast.
    #[arg(long)]
    no_flood_multicast: bool,
    /// Flood them with no broadcast.
    #[arg(long)]
    no_flood_broadcast: bool,
    /// VLAN tags: transparent lets all pass, untagged only frames without; or only the VLANs of a list, as in 7,100-200
    /// [default: transparent].
    #[arg(long, value_name = "VLANS", value_parser = read::vlan)]
    vlan: Option<VlanMode>,
    /// Untagged frames are of this VLAN, 1 to 4094; beside a list of VLANs, or alone.
    #[arg(long, value_name = "VLAN", value_parser = number::<u16>(values::VID))]
    pvid: Option<u16>,
    /// Split horizon group of the devices: no frames between them and to the remotes of the group, 1 to 31; 0: none
    /// [default: 0].
    #[arg(long, value_name = "GROUP", value_parser = number::<u8>(values::HORIZON_GROUP))]
    port_group: Option<u8>,
    /// Broadcast frames of each device that are flooded at most, as with --storm-broadcast [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    port_storm_broadcast: Option<Rate>,
    /// The same for multicast [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    port_storm_multicast: Option<Rate>,
    /// The same for frames to addresses that are not known [default: none].
    #[arg(long, value_name = "RATE", value_parser = read::rate)]
    port_storm_unknown_unicast: Option<Rate>,
    /// Who leaves a multicast group is the only one behind the device: nobody else is asked.
    #[arg(long)]
    fast_leave: bool,
    /// There are no multicast routers behind the devices: who claims so is ignored.
    #[arg(long)]
    no_multicast_routers: bool,
}

impl Ports {
    pub fn options(&self) -> Result<PortOptions, Failure> {
        let mut options = PortOptions::default();
        options.isolated = self.isolated;
        options.hairpin = self.hairpin;
        options.learning = !self.no_port_learning;
        options.flood_unknown_unicast = !self.no_flood_unknown_unicast;
        options.flood_multicast = !self.no_flood_multicast;
        options.flood_broadcast = !self.no_flood_broadcast;
        options.vlan = values::vlan_mode(self.vlan.clone(), self.pvid)
            .ok_or_else(|| Failure::Usage(format!("--{}", values::PVID)))?;
        options.group = self.port_group.unwrap_or(options.group);
        options.storm.broadcast = self.port_storm_broadcast.flatten();
        options.storm.multicast = self.port_storm_multicast.flatten();
        options.storm.unknown_unicast = self.port_storm_unknown_unicast.flatten();
        options.fast_leave = self.fast_leave;
        options.multicast_routers = !self.no_multicast_routers;
        Ok(options)
    }

    /// Adds the further devices, which have the options of the first.
    pub fn add_to(self, planned: &mut SegmentPlan) -> Result<(), Failure> {
        for device in self.add_dev {
            if planned.ports.iter().any(|port| port.device == device) {
                return Err(Failure::Usage(format!("--add-dev: {device} is given twice")));
            }
            let options = planned.ports[0].options.clone();
            planned.add_port(device, Vec::new(), options);
        }
        Ok(())
    }
}
