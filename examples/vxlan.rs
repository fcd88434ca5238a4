//! Hello world of an embedding agent: one VXLAN segment between this node and one peer.
//!
//! ```text
//! cargo run --example vxlan -- 192.0.2.1 192.0.2.2
//! ```
//!
//! Needs the right to open a TAP device (root, or CAP_NET_ADMIN). Set the device up from another terminal:
//! `ip address add 10.8.0.1/24 dev ovl0 && ip link set ovl0 mtu 1450 up`. Press Enter to stop.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use overplane::{Config, Dataplane, Device, Segment, Vni};

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1);
    let mut next = || addresses.next().ok_or("usage: vxlan LOCAL-ADDRESS PEER-ADDRESS");
    let local: IpAddr = next()?.parse()?;
    let peer = SocketAddr::new(next()?.parse()?, 4789);

    let dataplane = Dataplane::start(Config::new(local))?;
    let control = dataplane.control();
    let red = control.add_segment(Segment::bridge(Vni::new(100)?))?;
    control.attach(red, Device::tap("ovl0")?)?;
    control.add_flood(red, peer)?;

    println!("forwarding between ovl0 and {peer}; Enter stops");
    std::io::stdin().read_line(&mut String::new())?;
    println!("{}", dataplane.stats());
    dataplane.stop()?;
    Ok(())
}
