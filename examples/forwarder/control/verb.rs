//! What a running forwarder can be asked: one definition for the command line and for the socket.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Subcommand;
use overplane::{CaptureFilter, MacAddr, Offloads, Prefix, Vni};
use overplane_lab::Cidr;
use serde::{Deserialize, Serialize};

use super::names::{SegmentName, Text, VtepName};

/// What a running forwarder can be asked.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// Show everything on one page: segments, their ports and VTEPs, and what became of frames.
    Show {},
    /// Read the configuration file again, and take over what has changed in it.
    Reload {
        /// Only show what would be changed.
        #[arg(long)]
        #[serde(default)]
        dry_run: bool,
    },
    /// Show or change FDB entries.
    #[command(subcommand)]
    Fdb(Fdb),
    /// Show, look up or change routes.
    #[command(subcommand)]
    Route(Routes),
    /// Show, add or remove segments.
    #[command(subcommand)]
    Segment(Segments),
    /// Show, add or remove ports.
    #[command(subcommand)]
    Port(Ports),
    /// Show, add or remove VTEPs.
    #[command(subcommand)]
    Vtep(Vteps),
    /// Show the counters.
    Stats {
        /// Show them again every so many seconds, until interrupted; counters of text are then those of the time between.
        #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        #[serde(skip)]
        watch: Option<u32>,
    },
    /// Show what was dropped, why, and what to do about it.
    Drops {
        /// All reasons there are, also those for which nothing was dropped.
        #[arg(long)]
        #[serde(default)]
        all: bool,
    },
    /// Follow events as they happen, until interrupted.
    Monitor {},
    /// Capture frames with what became of them, as pcapng, until interrupted.
    Capture {
        /// Only frames of which all of this holds: mac=, net=, vni=, udp_port=, port=, vtep= or fate=, joined by commas.
        #[arg(default_value = "")]
        #[serde(default = "everything")]
        filter: Text<CaptureFilter>,
        /// Bytes of each frame that are kept, the first ones [default: all].
        #[arg(long, value_name = "BYTES")]
        snap: Option<usize>,
        /// The file, which is overwritten; "-" is the standard output.
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        #[serde(skip)]
        write: PathBuf,
        /// End after so many seconds.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        #[serde(skip)]
        seconds: Option<u32>,
    },
    /// Show offloads or switch them.
    #[command(subcommand)]
    Offload(Offload),
}

/// The filter that lets everything through.
fn everything() -> Text<CaptureFilter> {
    Text(CaptureFilter::default())
}

/// Verbs about FDB entries.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fdb {
    /// Show the entries of all bridge segments, or of one; in no order.
    Show {
        /// Only of this segment: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
        /// Only of this MAC address.
        #[arg(long)]
        mac: Option<Text<MacAddr>>,
    },
    /// Add an entry, or replace it; a destination more for the address of a group.
    Add {
        /// The MAC address.
        mac: Text<MacAddr>,
        /// It is behind this VTEP.
        #[arg(
            long,
            value_name = "ADDRESS[:PORT]",
            required_unless_present = "port",
            conflicts_with = "port"
        )]
        vtep: Option<Text<VtepName>>,
        /// It is behind this device.
        #[arg(long, value_name = "DEVICE")]
        port: Option<String>,
        /// As if learned elsewhere: listed so, and frames from another place move it.
        #[arg(long = "extern")]
        #[serde(default, rename = "extern")]
        external: bool,
        /// The segment, if there are several: VNI or VNI@PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Remove the entry of a MAC address, static or learned.
    Del {
        /// The MAC address.
        mac: Text<MacAddr>,
        /// Only this destination of a group.
        #[arg(long, value_name = "ADDRESS[:PORT]", conflicts_with = "port")]
        vtep: Option<Text<VtepName>>,
        /// Only this destination of a group.
        #[arg(long, value_name = "DEVICE")]
        port: Option<String>,
        /// The segment, if there are several: VNI or VNI@PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Forget what was learned, of all segments or of one; static entries stay.
    Flush {
        /// Only what is behind this VTEP.
        #[arg(long, value_name = "ADDRESS[:PORT]", conflicts_with = "port")]
        vtep: Option<Text<VtepName>>,
        /// Only what is behind this device.
        #[arg(long, value_name = "DEVICE")]
        port: Option<String>,
        /// Only of this segment: VNI or VNI@PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
}

/// Verbs about routes.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Routes {
    /// Show the routes of all routed segments, or of one, sorted.
    Show {
        /// Only of this segment: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Show which route packets to an address take.
    Get {
        /// The address.
        address: IpAddr,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Add a route, or replace it.
    Add {
        /// Destinations.
        prefix: Text<Prefix>,
        /// Their packets go to this VTEP.
        #[arg(long, value_name = "ADDRESS[:PORT]", group = "via")]
        vtep: Option<Text<VtepName>>,
        /// Their packets go to this device.
        #[arg(long, value_name = "DEVICE", group = "via")]
        port: Option<String>,
        /// Their packets are dropped.
        #[arg(long, group = "via")]
        #[serde(default)]
        blackhole: bool,
        /// Their packets are dropped, and whoever sends them is told.
        #[arg(long, group = "via")]
        #[serde(default)]
        unreachable: bool,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Remove a route.
    Del {
        /// Destinations.
        prefix: Text<Prefix>,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
}

/// Verbs about segments.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Segments {
    /// Show all segments.
    Show {},
    /// Add a bridge segment with default options.
    Add {
        /// VXLAN network identifier, 0 to 16777215.
        vni: Text<Vni>,
        /// UDP port of the segment [default: 4789].
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        udp_port: Option<u16>,
    },
    /// Remove a segment with its ports, entries and routes.
    Del {
        /// The segment: VNI, VNI@PORT, or udp:PORT.
        segment: Text<SegmentName>,
    },
}

/// Verbs about ports.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ports {
    /// Show all ports.
    Show {},
    /// Make a device, or take one that is there, and attach it.
    Add {
        /// Name of the device.
        device: String,
        /// Address of this node in the overlay, with its prefix length; can be repeated.
        #[arg(long, value_name = "ADDRESS/LENGTH")]
        #[serde(default)]
        address: Vec<Text<Cidr>>,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Detach a device; it goes, unless it was there before.
    Del {
        /// Name of the device.
        device: String,
    },
}

/// Verbs about VTEPs.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Vteps {
    /// Show all VTEPs.
    Show {},
    /// Accept datagrams from a VTEP, and send it what is for everybody.
    Add {
        /// Underlay address, with a UDP port if it is not the segment's.
        vtep: Text<VtepName>,
        /// Only accept datagrams: it is not sent what is for everybody.
        #[arg(long)]
        #[serde(default)]
        no_flood: bool,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
    /// Take that back.
    Del {
        /// Underlay address, with a UDP port if it is not the segment's.
        vtep: Text<VtepName>,
        /// The segment, if there are several: VNI, VNI@PORT, or udp:PORT.
        #[arg(long)]
        segment: Option<Text<SegmentName>>,
    },
}

/// Verbs about offloads.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Offload {
    /// Show every offload with its state.
    Show {},
    /// Use these from now on, as far as they work here; what has failed before is tried again.
    Set {
        /// "auto", "off", or names joined by commas.
        offloads: Text<Offloads>,
    },
}
