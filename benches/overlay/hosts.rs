//! Two hosts on a wire, with every system between them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane_lab::{Namespace, Ping, Vxlan, ping};

use crate::Result;
use crate::process::Process;
use crate::system::{System, underlay};

/// The hosts, and the nodes on them. All goes with this process.
#[derive(Debug)]
pub struct Hosts {
    both: [Namespace; 2],
    nodes: Vec<(System, Process)>,
}

impl Hosts {
    /// Makes the hosts and sets the systems up, each with its own devices, addresses and ports.
    pub fn new(systems: &[System]) -> Result<Self> {
        let both = [Namespace::new()?, Namespace::new()?];
        for host in &both {
            // Its solicitations would flow while nothing should.
            let _absent_if_refused = host.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
            let _absent_if_refused = host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        }
        Namespace::veth(&both[0], "eth0", &both[1], "eth0")?;
        let mut hosts = Self { both, nodes: Vec::new() };
        for number in 0..2 {
            hosts.configure(System::Veth, number)?;
        }
        hosts.introduce(System::Veth)?;
        let mut pairs: Vec<System> = systems.iter().map(|system| system.pair()).collect();
        pairs.dedup();
        for pair in pairs.into_iter().filter(|pair| *pair != System::Veth) {
            hosts.join(pair)?;
        }
        Ok(hosts)
    }

    /// From which host to which a system goes, and where the latter is reached through it.
    pub fn way(&self, system: System) -> [(&Namespace, SocketAddr); 2] {
        let (from, to) = system.direction();
        [from, to].map(|host| (&self.both[host], SocketAddr::new(system.address(host).into(), 0)))
    }

    /// The processes of a system.
    pub fn nodes(&self, system: System) -> impl Iterator<Item = &Process> {
        self.nodes.iter().filter(move |(it, _)| *it == system.pair()).map(|(_, process)| process)
    }

    /// Ends the nodes.
    pub fn stop(self) -> Result<()> {
        self.nodes.into_iter().try_for_each(|(_, process)| process.stop())
    }

    fn join(&mut self, pair: System) -> Result<()> {
        for (number, end) in pair.ends().into_iter().enumerate() {
            if end.is_node() {
                let process = Process::start(pair, number, &self.both[number])?;
                self.nodes.push((pair, process));
            } else {
                let remotes = [underlay(1 - number).into()];
                self.both[number].add_vxlan(&Vxlan {
                    remotes: &remotes,
                    port: pair.udp_port(),
                    ..Vxlan::new(&pair.device(), pair.vni(), underlay(number).into())
                })?;
                self.configure(pair, number)?;
            }
        }
        self.introduce(pair)
    }

    /// Sets up a device of the kernel's; it knows its MTU itself.
    fn configure(&self, system: System, number: usize) -> Result<()> {
        let (host, device) = (&self.both[number], &system.device());
        host.add_address(device, (system.address(number).into(), 24))?;
        host.up(device)?;
        Ok(())
    }

    /// Makes the hosts known to each other for good, so that nothing is looked up while something is measured.
    fn introduce(&self, pair: System) -> Result<()> {
        let device = &pair.device();
        for host in &self.both {
            host.wait_up(device, Duration::from_secs(5))?;
        }
        let address = |number| IpAddr::from(pair.address(number));
        for (number, peer) in [(0, 1), (1, 0)] {
            if pair.ends()[number].is_ethernet() {
                let mac = self.both[peer].mac(device)?;
                self.both[number].add_neighbour(device, address(peer), mac)?;
            }
        }
        // With this the nodes learn where those addresses are.
        for (number, peer) in [(0, 1), (1, 0)] {
            let report = ping(&self.both[number], address(peer), Ping::default())?;
            if report.received == 0 {
                let host = number + 1;
                return Err(format!("{}: host {host} gets no answer", pair.name()).into());
            }
        }
        Ok(())
    }
}
