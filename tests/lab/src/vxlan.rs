//! The kernel's own VXLAN, to talk to.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan};

use crate::Namespace;
use crate::error::{Attempt, invalid};

/// A VXLAN link of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Vxlan<'a> {
    /// The link's name.
    pub name: &'a str,
    /// The VXLAN network identifier, of 24 bits.
    pub vni: u32,
    /// The address that encapsulated frames come from.
    pub local: IpAddr,
    /// Where broadcast, multicast and unknown frames go, all of one version of IP.
    pub remotes: &'a [IpAddr],
    /// The UDP port, on both ends.
    pub port: u16,
    /// Whether source addresses are learned from received frames.
    pub learning: bool,
    /// After how many seconds without a frame a learned address is forgotten; the kernel's 300 if
    /// not given.
    pub ageing: Option<u32>,
    /// Whether outer UDP checksums are sent; those that come are verified in any case.
    pub send_checksums: bool,
    /// Whether datagrams without checksum are accepted over IPv6; over IPv4 they always are.
    pub accept_unchecked: bool,
    /// Whether a packet's mark is the group policy in the VXLAN header, both ways.
    pub gbp: bool,
    /// In place of remotes: a group of the underlay, and the link on which the kernel is a member of it.
    pub group: Option<(IpAddr, &'a str)>,
}

impl<'a> Vxlan<'a> {
    /// A link that learns, on port 4789, without remotes, with checksums.
    #[must_use]
    pub fn new(name: &'a str, vni: u32, local: IpAddr) -> Self {
        Self {
            name,
            vni,
            local,
            remotes: &[],
            port: 4789,
            learning: true,
            ageing: None,
            send_checksums: true,
            accept_unchecked: false,
            gbp: false,
            group: None,
        }
    }
}

impl Namespace {
    /// Makes a VXLAN link of the kernel, down.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, for a name, port or identifier that is taken for one.
    pub fn add_vxlan(&self, vxlan: &Vxlan<'_>) -> io::Result<()> {
        let add = || {
            if vxlan.remotes.iter().any(|remote| remote.is_ipv4() != vxlan.local.is_ipv4()) {
                return Err(invalid("local and remote addresses are of both versions of IP"));
            }
            let mut data = data(vxlan);
            if let Some((group, link)) = vxlan.group {
                data.extend([to(group), InfoVxlan::Link(self.find(link)?)]);
            }
            self.add_link(vxlan.name, InfoKind::Vxlan, Some(InfoData::Vxlan(data)))?;
            // The first remote is the one the link was made with.
            for remote in vxlan.remotes.iter().skip(1) {
                self.bridge_fdb_add(vxlan.name, [0; 6], *remote)?;
            }
            Ok(())
        };
        add().attempt(|| format!("making the VXLAN link {} of VNI {}", vxlan.name, vxlan.vni))
    }
}

fn data(vxlan: &Vxlan<'_>) -> Vec<InfoVxlan> {
    let mut data = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::Learning(vxlan.learning),
        match vxlan.local {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        },
    ];
    data.push(match vxlan.local {
        IpAddr::V4(_) => InfoVxlan::UDPCsum(vxlan.send_checksums),
        IpAddr::V6(_) => InfoVxlan::UDPZeroCsumTX(!vxlan.send_checksums),
    });
    data.push(InfoVxlan::UDPZeroCsumRX(vxlan.accept_unchecked));
    data.extend(vxlan.ageing.map(InfoVxlan::Ageing));
    data.extend(vxlan.gbp.then_some(InfoVxlan::Gbp));
    data.extend(vxlan.remotes.first().copied().map(to));
    data
}

/// Where flooded frames go, first of all.
fn to(remote: IpAddr) -> InfoVxlan {
    match remote {
        IpAddr::V4(ip) => InfoVxlan::Group(ip),
        IpAddr::V6(ip) => InfoVxlan::Group6(ip),
    }
}
