//! VLAN tags at ports that care for them.

use overplane::wire::VnetHeader;
use overplane::{Change, DropReason, PortId, PortOptions, VlanMode, VlanSet};

use crate::network::Network;
use crate::packets::*;

fn only(vlans: &[u16], pvid: Option<u16>) -> PortOptions {
    let mut set = VlanSet::default();
    vlans.iter().for_each(|vid| set.insert(*vid).unwrap());
    port_options(|options| options.vlan = VlanMode::Only { vlans: set, pvid })
}

fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// Two nodes with a port each: the second takes everything, the first has these options.
fn pair(options: PortOptions, offload: bool) -> (Network, PortId, PortId) {
    let (mut network, ports) = Network::mesh(2, &bridge(1), offload);
    network.change(1, Change::SetPort { port: ports[0], options });
    (network, ports[0], ports[1])
}

#[test]
fn an_access_port_is_tagged_inside_and_untagged_outside() {
    let (mut network, access, trunk) = pair(only(&[], Some(5)), false);
    let hello = udp(host(1), EVERYBODY, b"hello");
    network.send(1, access, &hello);
    assert_eq!(network.frames(2, trunk), [tagged(&hello, 5)]);
    // A priority stays, and gets the VLAN.
    network.send(1, access, &tagged(&hello, 0xe000));
    assert_eq!(network.frames(2, trunk), [tagged(&hello, 0xe005)]);
    network.send(1, access, &tagged(&hello, 6));
    assert_eq!(network.drops(1, DropReason::VlanFiltered), 1);

    // Known and flooded.
    for to in [host(1), EVERYBODY] {
        let answer = udp(host(2), to, b"answer");
        network.send(2, trunk, &tagged(&answer, 0x6005));
        assert_eq!(network.frames(1, access), [answer.as_slice()]);
        network.send(2, trunk, &answer);
        network.send(2, trunk, &tagged(&answer, 6));
        assert_eq!(network.frames(1, access), [] as [Vec<u8>; 0]);
    }
    assert_eq!(network.drops(1, DropReason::VlanFiltered), 3);
    assert_eq!(network.drops(1, DropReason::NoDestination), 2);
}

#[test]
fn ports_of_one_node_get_one_frame_each_as_they_want_it() {
    let (mut network, access, far) = pair(only(&[], Some(5)), false);
    let trunk = network.add_port_with(1, bridge_id(1), false, only(&[5, 6], None));
    let untagged = port_options(|options| options.vlan = VlanMode::Untagged);
    let plain = network.add_port_with(1, bridge_id(1), false, untagged);
    let other = network.add_port_with(1, bridge_id(1), false, only(&[], Some(6)));
    let again = network.add_port_with(1, bridge_id(1), false, only(&[], Some(5)));
    let hello = udp(host(1), EVERYBODY, b"hello");
    network.send(1, access, &hello);
    assert_eq!(network.frames(1, again), [hello.as_slice()]);
    assert_eq!(network.frames(1, trunk), [tagged(&hello, 5)]);
    assert_eq!(network.frames(2, far), [tagged(&hello, 5)]);
    for port in [plain, other, access] {
        assert_eq!(network.frames(1, port), [] as [Vec<u8>; 0]);
    }
    // Known: from the trunk to the access port, and to where it may not go.
    let answer = udp(host(2), host(1), b"answer");
    network.send(1, trunk, &tagged(&answer, 5));
    assert_eq!(network.frames(1, access), [answer.as_slice()]);
    network.send(1, trunk, &tagged(&answer, 6));
    network.send(1, plain, &tagged(&answer, 5));
    network.send(1, plain, &answer);
    assert_eq!(network.drops(1, DropReason::VlanFiltered), 3);
    assert_eq!(network.frames(1, access), [] as [Vec<u8>; 0]);
}

/// What is unfinished about a frame is found where it is, with a tag and without.
#[test]
fn super_frames_keep_their_headers_right() {
    let (mut network, access, trunk) = pair(only(&[], Some(5)), true);
    let second = network.add_port_with(1, bridge_id(1), true, only(&[], Some(5)));
    let plain = network.add_port_with(1, bridge_id(1), false, only(&[], Some(5)));
    let payload: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
    for to in [EVERYBODY, host(2)] {
        network.send(1, second, &udp(host(2), EVERYBODY, b"here I am"));
        for port in [access, plain] {
            network.received(1, port);
        }
        network.received(2, trunk);
        let (frame, vnet) = udp_super_frame(host(1), to, &payload, 1000);
        network.send_unfinished(1, access, &frame, vnet);
        let got = network.received(1, second);
        assert_eq!((&got[0].bytes, got[0].vnet), (&frame, vnet));
        if to.mac != EVERYBODY.mac {
            continue;
        }
        let chunks = network.frames(1, plain);
        let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[42..].to_vec()).collect();
        assert_eq!((chunks.len(), whole), (3, payload.clone()));
        let far = network.received(2, trunk);
        assert_eq!(far.len(), 3);
        for (far, chunk) in far.iter().zip(&chunks) {
            assert_eq!((far.vnet, &far.bytes), (VnetHeader::default(), &tagged(chunk, 5)));
        }
        let (frame, vnet) = unfinished(udp(host(1), to, b"one"));
        network.send_unfinished(1, access, &frame, vnet);
        assert_eq!(network.frames(1, plain).len(), 1);
        network.received(1, second);
    }
}
