//! Underlay sockets.

mod errors;
mod probe;
mod trains;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::*;
use crate::drop_reason::DropReason;
use crate::io::udp::Buffers;
use crate::io::{
    Heading, PathLesson, Receiver, SendQueue, SocketOptions, UdpSocket, underlay_reason,
};
use crate::segment::OuterHeader;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn open(ip: IpAddr, options: SocketOptions) -> (UdpSocket, Buffers) {
    UdpSocket::open(SocketAddr::new(ip, 0), &options).unwrap()
}

fn large() -> SocketOptions {
    SocketOptions {
        receive_buffer: 1 << 22,
        send_buffer: 1 << 22,
        may_fragment: true,
        ..SocketOptions::default()
    }
}

fn outcomes<'a>(
    socket: &UdpSocket,
    messages: impl IntoIterator<Item = (SocketAddr, [&'a [u8]; 2])>,
) -> Vec<io::Result<usize>> {
    let mut outcomes = Vec::new();
    let refusal = SendQueue::new(1).send(socket, messages, false, |index, outcome| {
        assert_eq!(index, outcomes.len());
        outcomes.push(outcome);
    });
    assert!(refusal.is_none());
    outcomes
}

#[test]
fn datagrams_of_all_sizes_arrive_in_order() {
    let bytes: Vec<u8> = (0..65_527_u32).map(|n| (n * 7) as u8).collect();
    for (ip, largest) in [(V4, 65_507), (V6, 65_527)] {
        let (sender, _) = open(ip, large());
        let (receiver, _) = open(ip, large());
        assert_ne!(receiver.local_addr().port(), 0);
        let to = receiver.local_addr();
        let sizes = [0, 1, 7, 8, 50, 1458, 1472, 1473, 8972, 32_768, largest - 1, largest];
        let message = |len: usize| (to, [&bytes[..len / 3], &bytes[len / 3..len]]);
        let results = outcomes(&sender, sizes.map(message));
        let lengths: Vec<usize> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(lengths, sizes);

        let mut state = Receiver::new(5);
        let mut batch = Batch::new(64);
        let mut calls = 0;
        while !receiver.receive(&mut state, &mut batch).drained {
            calls += 1;
        }
        assert_eq!((batch.len(), calls), (sizes.len(), 2));
        for (index, len) in sizes.into_iter().enumerate() {
            assert_eq!(batch.source(index), sender.local_addr().ip());
            assert!(batch.frame(index) == &bytes[..len], "datagram of {len} bytes");
        }
        let received = receiver.receive(&mut state, &mut batch);
        assert!(received.drained && received.failure.is_none() && received.truncated == 0);
        let error = outcomes(&sender, [message(largest), (to, [&bytes, &bytes])]).pop().unwrap();
        assert_eq!(underlay_reason(&error.unwrap_err()), DropReason::UnderlayTooBig);
    }
}

/// Each datagram has the header that it was sent with, by itself and in trains, which are of one header each.
#[test]
fn headers_are_sent_and_seen_by_both_families() {
    for ip in [V4, V6] {
        let (sender, _) = open(ip, large());
        let (receiver, _) = open(ip, SocketOptions { receive_tos: true, ..large() });
        let to = receiver.local_addr();
        // Runs of 1 to 9 datagrams with one header, of which those without anything are one.
        let tos = (0..10_u8).flat_map(|run| std::iter::repeat_n(run.wrapping_mul(29), run.into()));
        let sent: Vec<(Heading, u8)> = tos
            .map(|tos| {
                let ttl = if tos % 2 == 0 { 0 } else { 7 };
                let outer = OuterHeader { tos, ttl, ..OuterHeader::default() };
                (Heading { to, outer }, tos)
            })
            .collect();
        for (most, gro) in [(1, false), (64, false), (64, true)] {
            assert!(receiver.set_gro(gro).unwrap());
            let messages = sent.iter().map(|(to, tos)| (*to, [std::slice::from_ref(tos), &[1; 9]]));
            let mut count = 0;
            let refusal = SendQueue::new(most).send(&sender, messages, most > 1, |_, outcome| {
                assert_eq!(outcome.unwrap(), 10);
                count += 1;
            });
            assert!(refusal.is_none() && count == sent.len());
            let (mut state, mut batch) = (Receiver::new(64), Batch::new(64));
            while !receiver.receive(&mut state, &mut batch).drained {}
            assert_eq!(batch.len(), sent.len());
            for (index, (_, tos)) in sent.iter().enumerate() {
                assert_eq!(batch.frame(index)[0], *tos, "in order");
                assert_eq!(batch.ecn(index), tos & 3, "{most} in one, {gro}");
            }
        }
    }
}

/// Without checksum there are no trains, and nothing is blamed for it; over IPv6 nobody hears who does not want to.
#[test]
fn row_07_datagrams_without_checksum_are_sent_and_heard_as_asked() {
    for ip in [V4, V6] {
        for accept_unchecked in [false, true] {
            let options = SocketOptions { send_unchecked: true, ..large() };
            let (sender, _) = open(ip, options);
            assert!(!sender.sends_trains() && open(ip, large()).0.sends_trains());
            let (receiver, _) = open(ip, SocketOptions { accept_unchecked, ..large() });
            let message = (receiver.local_addr(), [&b"unchecked"[..], &[]]);
            assert!(outcomes(&sender, [message; 3]).iter().all(Result::is_ok));
            // Why trains are not tried: they would be refused each time.
            let refusal = SendQueue::new(8).send(&sender, [message; 3], true, |_, outcome| {
                assert!(outcome.is_ok());
            });
            assert_eq!(refusal.and_then(|error| error.raw_os_error()), Some(libc::EINVAL));
            let mut batch = Batch::new(8);
            assert!(receiver.receive(&mut Receiver::new(8), &mut batch).failure.is_none());
            assert_eq!(batch.len(), if ip == V4 || accept_unchecked { 6 } else { 0 }, "{ip}");
        }
    }
}

#[test]
fn a_full_batch_leaves_the_rest_in_the_socket() {
    let (socket, _) = open(V4, large());
    let to = socket.local_addr();
    let payloads: Vec<[u8; 2]> = (0..300_u16).map(u16::to_be_bytes).collect();
    let messages = payloads.iter().map(|payload| (to, [&payload[..1], &payload[1..]]));
    assert!(outcomes(&socket, messages).into_iter().all(|result| result.unwrap() == 2));
    let mut state = Receiver::new(64);
    let mut batch = Batch::new(100);
    let mut seen = Vec::new();
    loop {
        let received = socket.receive(&mut state, &mut batch);
        if batch.len() == batch.capacity() {
            assert!(!received.drained);
            assert!(!socket.receive(&mut state, &mut batch).drained, "no room, so who knows");
        }
        if batch.len() == batch.capacity() || received.drained {
            seen.extend((0..batch.len()).map(|index| batch.frame(index).to_vec()));
            batch.clear();
        }
        if received.drained {
            break;
        }
    }
    assert_eq!(seen, payloads);
}

#[test]
fn datagrams_that_were_cut_are_left_out() {
    let (socket, _) = open(V4, large());
    let to = socket.local_addr();
    let payloads = [&b"good"[..], b"too long", b"fine", b"", b"too long too", b"last"];
    assert_eq!(outcomes(&socket, payloads.map(|payload| (to, [&[][..], payload]))).len(), 6);
    let mut batch = Batch::new(8);
    assert!(batch.push_datagram(b"before", to));
    let mut state = Receiver::new(8);
    let short = batch.free_slots().map(|slot| &mut slot[..4]);
    let count = state.group.receive(socket.as_fd(), short).unwrap();
    assert_eq!(count, 6);
    assert_eq!(state.commit(count, &mut batch), 2);
    let frames: Vec<&[u8]> = (0..batch.len()).map(|index| batch.frame(index)).collect();
    assert_eq!(frames, [&b"before"[..], b"good", b"fine", b"", b"last"]);
}

#[test]
fn one_datagram_above_the_path_mtu_does_not_harm_its_neighbours() {
    in_new_netns(|| {
        testing::set_mtu("lo", 1500).unwrap();
        for ip in [V4, V6] {
            let payload = [5; 3000];
            let sizes: Vec<usize> =
                (0..150).map(|n| if [0, 70, 71, 149].contains(&n) { 3000 } else { 100 }).collect();
            for dont_fragment in [true, false] {
                let options = SocketOptions { may_fragment: !dont_fragment, ..large() };
                let (sender, _) = open(ip, options);
                let (receiver, _) = open(ip, large());
                let to = receiver.local_addr();
                let messages = sizes.iter().map(|size| (to, [&[][..], &payload[..*size]]));
                let results = outcomes(&sender, messages);
                assert_eq!(results.len(), 150);
                for (size, result) in sizes.iter().zip(results) {
                    match result {
                        Ok(len) => assert!(len == *size && !(dont_fragment && len == 3000)),
                        Err(error) => {
                            assert!(dont_fragment && *size == 3000, "{error}");
                            assert_eq!(underlay_reason(&error), DropReason::UnderlayTooBig);
                        }
                    }
                }
                let mut batch = Batch::new(200);
                assert!(receiver.receive(&mut Receiver::new(200), &mut batch).drained);
                assert_eq!(batch.len(), if dont_fragment { 146 } else { 150 });
            }
        }
    });
}

#[test]
fn a_full_socket_refuses_the_rest_at_once() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        raise("ovl0");
        let options = SocketOptions { send_buffer: 8192, ..SocketOptions::default() };
        let (socket, buffers) = open(HOST.into(), options);
        assert_eq!(buffers.send, 8192);
        // Nobody answers for this address, so that the datagrams wait, and fill the send buffer.
        let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 77).into(), 9);
        let payload = [0; 1000];
        let results = outcomes(&socket, (0..200).map(|_| (to, [&[][..], &payload[..]])));
        assert_eq!(results.len(), 200);
        let sent = results.iter().take_while(|result| result.is_ok()).count();
        assert!((1..64).contains(&sent), "{sent} sent");
        for result in &results[sent..] {
            let error = result.as_ref().unwrap_err();
            assert_eq!(underlay_reason(error), DropReason::UnderlayFull);
        }
        let _ = queue.receive(&mut Batch::new(4));
    });
}

#[test]
fn failures_of_single_datagrams_are_told_apart() {
    in_new_netns(|| {
        let (socket, _) = open(Ipv4Addr::UNSPECIFIED.into(), SocketOptions::default());
        let to = SocketAddr::new(V4, socket.local_addr().port());
        let nowhere = "192.0.2.1:4789".parse().unwrap();
        let v6 = "[::1]:4789".parse().unwrap();
        let broadcast = "255.255.255.255:4789".parse().unwrap();
        let messages = [to, nowhere, v6, to, broadcast, to].map(|to| (to, [&b"a"[..], b"b"]));
        let reasons: Vec<_> = outcomes(&socket, messages)
            .into_iter()
            .map(|result| result.map_err(|error| underlay_reason(&error)))
            .collect();
        let unreachable = Err(DropReason::UnderlayUnreachable);
        assert_eq!((reasons[0], reasons[3], reasons[5]), (Ok(2), Ok(2), Ok(2)));
        assert_eq!(reasons[1], unreachable);
        assert_eq!(reasons[2], Err(DropReason::UnderlayFailed), "of another family");
        assert!(reasons[4].is_err());
    });
}

#[test]
fn errors_say_what_is_in_the_way() {
    let (held, _) = open(V4, SocketOptions::default());
    let error = UdpSocket::open(held.local_addr(), &SocketOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("opening underlay socket 127.0.0.1:"), "{error}");
    assert!(
        error.contains("perhaps a kernel VXLAN device") && error.contains("ss -lun"),
        "{error}"
    );
    let elsewhere = "192.0.2.1:0".parse().unwrap();
    let error = UdpSocket::open(elsewhere, &SocketOptions::default()).unwrap_err().to_string();
    assert!(error.contains("not on any interface"), "{error}");
}

#[test]
fn several_sockets_share_a_port_if_asked() {
    let options = SocketOptions { reuse_port: true, ..SocketOptions::default() };
    let (first, _) = open(V4, options);
    let (second, _) = UdpSocket::open(first.local_addr(), &options).unwrap();
    assert_eq!(first.local_addr(), second.local_addr());
    // Both families of one port do not get into each other's way.
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), first.local_addr().port());
    UdpSocket::open(any, &SocketOptions::default()).unwrap();
}

#[test]
fn buffers_have_the_size_asked_for_and_drops_are_counted() {
    let options = SocketOptions { receive_buffer: 10_000, ..SocketOptions::default() };
    let (socket, buffers) = open(V4, options);
    assert_eq!(buffers.receive, 10_000);
    assert!(buffers.send > 10_000, "the kernel's default");
    assert_eq!(socket.drops(), Some(0));
    let to = socket.local_addr();
    let payload = [0; 1000];
    assert_eq!(outcomes(&socket, (0..100).map(|_| (to, [&payload[..], &[]]))).len(), 100);
    let mut batch = Batch::new(200);
    assert!(socket.receive(&mut Receiver::new(200), &mut batch).drained);
    assert_eq!(socket.drops(), Some(100 - batch.len() as u32));
}
