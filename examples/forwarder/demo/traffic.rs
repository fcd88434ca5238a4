//! Traffic between the hosts, its content checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane_lab::{Namespace, Ping, Transfer, ping, tcp_transfer};

use super::hosts::Hosts;
use super::steps::{Steps, ensure};
use crate::failure::Failure;

/// IP and ICMP headers in front of a ping's content.
const PING_HEADERS: [u32; 2] = [28, 48];
/// How much is sent over TCP in each direction, in bytes.
const BULK: u64 = 16 << 20;
/// How long that may take.
const BULK_TIME: Duration = Duration::from_secs(5);

/// Pings of several sizes, then TCP, over IPv4 and IPv6 and in both directions; `None` after the first failure.
pub fn check(steps: &mut Steps, hosts: &Hosts) -> Option<()> {
    let mtu = hosts.mtu() as usize;
    let ways = [("left to right", 0, 1), ("right to left", 1, 0)];
    let versions = [("IPv4", 0), ("IPv6", 1)];
    for (version, family) in versions {
        let full = mtu - PING_HEADERS[family] as usize;
        for (way, from, to) in ways {
            let label = format!("ping {version} {way}, 0 to {full} bytes, and in fragments ");
            let to = hosts.addresses(to)[family];
            steps.step(&label, || pings(&hosts.both[from], to, full, 3 * mtu))?;
        }
    }
    for (version, family) in versions {
        for (way, from, to) in ways {
            let label = format!("TCP {version} {way}, {} MiB, every byte checked ", BULK >> 20);
            let server = SocketAddr::new(hosts.addresses(to)[family], 0);
            steps.step(&label, || bulk(&hosts.both[from], &hosts.both[to], server))?;
        }
    }
    Some(())
}

/// Pings up to the full MTU, which may not be fragmented, and one that has to be.
fn pings(from: &Namespace, to: IpAddr, full: usize, over: usize) -> Result<(), Failure> {
    for payload in [0, 56, 1000, full - 1, full, over] {
        let how = Ping { payload, dont_fragment: payload <= full, ..Ping::default() };
        let report = ping(from, to, how)?;
        let (sent, received) = (report.sent, report.received);
        ensure(
            sent == received,
            format_args!("{received} of {sent} pings of {payload} bytes to {to} were answered"),
        )?;
        ensure(report.surplus == 0, format_args!("{} answers came twice", report.surplus))?;
    }
    Ok(())
}

fn bulk(from: &Namespace, to: &Namespace, server: SocketAddr) -> Result<(), Failure> {
    let what = Transfer { duration: Some(BULK_TIME), ..Transfer::of_bytes(BULK) };
    let report = tcp_transfer(from, to, server, what)?;
    let arrived = report.bytes;
    ensure(arrived == BULK, format_args!("{arrived} bytes of {BULK} arrived in {BULK_TIME:?}"))
}
