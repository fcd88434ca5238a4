//! The self-test of underlay sockets.

use super::*;
use crate::batch::MAX_TRAIN;
use crate::io::kernel::{self, Version};
use crate::io::probe::{UdpProbe, Verdict, probe};
use crate::offload::Offload;
use crate::wire::vnet;

#[test]
fn it_finds_what_this_kernel_can_do() {
    let spoiled = |offload| {
        kernel::spoiled(Version::running().unwrap()).any(|(spoiled, _)| spoiled == offload)
    };
    for ip in [V4, V6, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let UdpProbe { gso, max_train, gro } = probe(ip);
        assert!([vnet::UDP_SAFE_CHUNKS, MAX_TRAIN].contains(&max_train), "{max_train}");
        assert!(gso == Verdict::Works || spoiled(Offload::UdpGso), "{ip}: {gso:?}");
        assert!(gro == Verdict::Works || spoiled(Offload::UdpGro), "{ip}: {gro:?}");
    }
}

#[test]
fn it_does_not_blame_the_offloads_where_nothing_arrives() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        raise("ovl0");
        assert_eq!(probe(HOST.into()).gso, Verdict::Works);
        testing::set_up("lo", false).unwrap();
        for local in [HOST.into(), V4, "192.0.2.1".parse().unwrap()] {
            let start = Instant::now();
            let UdpProbe { gso, max_train, gro } = probe(local);
            assert!(start.elapsed() < Duration::from_secs(5), "bounded");
            assert!(matches!(&gso, Verdict::Untested(why) if !why.is_empty()), "{gso:?}");
            assert_eq!((gro, max_train), (gso, vnet::UDP_SAFE_CHUNKS));
        }
        let _ = queue.receive(&mut Batch::new(4));
    });
}
