//! Several datagrams in one message, both ways.

use proptest::prelude::*;

use super::*;
use crate::batch::MAX_TRAIN;

/// A socket that receives trains.
fn open_joining(ip: IpAddr, options: SocketOptions) -> UdpSocket {
    let (socket, _) = open(ip, options);
    assert!(socket.set_gro(true).unwrap());
    socket
}

/// Sends with trains of up to `most` datagrams; returns the outcomes and the refusal.
fn send<'a>(
    socket: &UdpSocket,
    most: usize,
    messages: impl IntoIterator<Item = (SocketAddr, [&'a [u8]; 2])>,
) -> (Vec<io::Result<usize>>, Option<io::Error>) {
    let mut outcomes = Vec::new();
    let refusal = SendQueue::new(most).send(socket, messages, true, |index, outcome| {
        assert_eq!(index, outcomes.len());
        outcomes.push(outcome);
    });
    (outcomes, refusal)
}

/// Sends datagrams of these lengths to one address; all must go. Returns them.
fn send_sizes(socket: &UdpSocket, to: SocketAddr, most: usize, sizes: &[usize]) -> Vec<Vec<u8>> {
    let datagrams: Vec<Vec<u8>> = sizes
        .iter()
        .enumerate()
        .map(|(index, size)| (0..*size).map(|at| (at * 7 + index * 31) as u8).collect())
        .collect();
    let messages = datagrams.iter().map(|bytes| (to, bytes.split_at(bytes.len() / 3).into()));
    let (outcomes, refusal) = send(socket, most, messages);
    let lengths: Vec<usize> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(lengths, sizes);
    assert!(refusal.is_none(), "{refusal:?}");
    datagrams
}

/// Everything in a socket, and the number of slots that it took.
fn drain(socket: &UdpSocket) -> (Vec<Vec<u8>>, usize) {
    let mut batch = Batch::new(64);
    let mut receiver = Receiver::new(64);
    let (mut frames, mut slots) = (Vec::new(), 0);
    loop {
        batch.clear();
        let received = socket.receive(&mut receiver, &mut batch);
        assert!(received.failure.is_none() && received.truncated == 0, "{received:?}");
        frames.extend((0..batch.len()).map(|index| batch.frame(index).to_vec()));
        slots += batch.capacity() - batch.free();
        if received.drained {
            return (frames, slots);
        }
    }
}

/// Sizes, and how many messages they make.
const MIXES: &[(&[usize], usize)] = &[
    (&[100], 1),
    (&[100, 100], 1),
    (&[100, 100, 99], 1),
    (&[100, 99, 99], 2),
    (&[99, 100, 100, 100, 1, 1, 1], 3),
    (&[0, 0, 100, 100, 0, 100, 100, 0], 6),
    (&[1, 2, 3], 3),
    (&[3, 2, 1], 2),
    (&[1450; 40], 1),
];

#[test]
fn trains_arrive_whole_where_they_may_and_cut_elsewhere() {
    for ip in [V4, V6] {
        let (sender, _) = open(ip, large());
        let (plain, _) = open(ip, large());
        let joined = open_joining(ip, large());
        for (sizes, messages) in MIXES {
            let sent = send_sizes(&sender, plain.local_addr(), 64, sizes);
            assert!(drain(&plain) == (sent, sizes.len()), "{sizes:?} at a plain socket");
            let sent = send_sizes(&sender, joined.local_addr(), 64, sizes);
            assert!(drain(&joined) == (sent, *messages), "{sizes:?} at a socket with UDP_GRO");
        }
    }
}

#[test]
fn a_train_is_as_long_as_it_may_be() {
    for (ip, halves) in [(V4, 1), (V6, 2)] {
        let (sender, _) = open(ip, large());
        let receiver = open_joining(ip, large());
        let to = receiver.local_addr();
        let probe = crate::io::probe::probe(ip);
        for (most, sizes, messages) in [
            (64, &[1; 300][..], 5),
            (64, &[1; 64], 1),
            (1, &[1; 50], 50),
            (probe.max_train, &[9; 300], 300_usize.div_ceil(probe.max_train)),
            (64, &[1400; 100], 3),
            (64, &[32_740; 2], halves),
            (64, &[32_750; 2], 2),
            (64, &[65_507, 65_507], 2),
        ] {
            let sent = send_sizes(&sender, to, most, sizes);
            assert!(drain(&receiver) == (sent, messages), "{} times {}", sizes.len(), sizes[0]);
        }
        // More runs of bytes than one call takes.
        let sent = send_sizes(&sender, to, 64, &[100; 1000]);
        assert!(drain(&receiver).0 == sent);
    }
}

#[test]
fn a_receiver_offers_fewer_slots_for_larger_messages() {
    let (sender, _) = open(V4, large());
    let socket = open_joining(V4, large());
    let mut sent = Vec::new();
    for _ in 0..12 {
        sent.extend(send_sizes(&sender, socket.local_addr(), 64, &[1450; 40]));
    }
    let mut receiver = Receiver::new(8);
    let (mut slots, mut frames) = (Vec::new(), Vec::new());
    let mut batch = Batch::new(64);
    loop {
        batch.clear();
        let drained = socket.receive(&mut receiver, &mut batch).drained;
        slots.push(batch.capacity() - batch.free());
        frames.extend((0..batch.len()).map(|index| batch.frame(index).to_vec()));
        if drained {
            break;
        }
    }
    assert_eq!(slots, [8, 4, 0]);
    assert!(frames == sent);
}

#[test]
fn addresses_may_alternate() {
    let (sender, _) = open(V4, large());
    let receivers = [open_joining(V4, large()), open(V4, large()).0, open_joining(V4, large())];
    let order = [0, 0, 1, 0, 1, 1, 2, 2, 2, 0, 0];
    let payloads: Vec<[u8; 50]> = (0..order.len()).map(|index| [index as u8; 50]).collect();
    let messages = order
        .iter()
        .zip(&payloads)
        .map(|(receiver, bytes)| (receivers[*receiver].local_addr(), [&bytes[..8], &bytes[8..]]));
    let (outcomes, refusal) = send(&sender, 64, messages);
    assert!(refusal.is_none() && outcomes.iter().all(|outcome| matches!(outcome, Ok(50))));
    for (receiver, socket) in receivers.iter().enumerate() {
        let expected: Vec<Vec<u8>> = order
            .iter()
            .zip(&payloads)
            .filter(|(to, _)| **to == receiver)
            .map(|(_, bytes)| bytes.to_vec())
            .collect();
        assert_eq!(drain(socket).0, expected, "receiver {receiver}");
    }
}

/// Without UDP checksums, the kernel refuses to send trains, as some devices and routes make it.
#[test]
fn where_trains_are_refused_everything_goes_singly() {
    for ip in [V4, V6] {
        let (sender, _) = open(ip, SocketOptions { send_unchecked: true, ..large() });
        let receiver = open_joining(ip, SocketOptions { accept_unchecked: true, ..large() });
        let to = receiver.local_addr();
        // Several trains, and more than one call takes.
        let bytes = [3; 500];
        let sizes: Vec<usize> = (0..700).map(|n| if n % 90 == 17 { n / 3 } else { 500 }).collect();
        let messages =
            sizes.iter().map(|size| (to, [&bytes[..9.min(*size)], &bytes[9.min(*size)..*size]]));
        let (outcomes, refusal) = send(&sender, 64, messages.clone());
        let lengths: Vec<usize> = outcomes.into_iter().map(Result::unwrap).collect();
        assert_eq!(lengths, sizes);
        assert_eq!(refusal.unwrap().raw_os_error(), Some(libc::EINVAL));
        let (frames, slots) = drain(&receiver);
        let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
        assert_eq!((lengths, slots), (sizes.clone(), sizes.len()));
        // Singles are no trouble, so nothing is refused.
        let (outcomes, refusal) = send(&sender, 1, messages);
        assert!(refusal.is_none() && outcomes.iter().all(Result::is_ok));
    }
}

#[test]
fn errors_that_single_datagrams_meet_as_well_do_not_count_against_trains() {
    in_new_netns(|| {
        let (sender, _) = open(Ipv4Addr::UNSPECIFIED.into(), large());
        let receiver = open_joining(V4, large());
        let good = receiver.local_addr();
        let bad = ["127.0.0.1:0", "192.0.2.1:9", "255.255.255.255:9", "[::1]:9"];
        let addresses = bad.map(|address| address.parse().unwrap());
        let order = addresses.iter().flat_map(|bad| [good, good, *bad, *bad, *bad, good]);
        let messages = order.clone().map(|to| (to, [&b"a"[..], b"bc"]));
        let (outcomes, refusal) = send(&sender, 64, messages);
        assert!(refusal.is_none(), "{refusal:?}");
        for (to, outcome) in order.clone().zip(&outcomes) {
            assert_eq!(outcome.is_ok(), to == good, "{to}: {outcome:?}");
        }
        assert_eq!(outcomes.len(), order.count());
        assert_eq!(drain(&receiver).0.len(), 3 * bad.len());
    });
}

#[test]
fn each_datagram_of_a_train_above_the_path_mtu_has_its_own_fate() {
    in_new_netns(|| {
        testing::set_mtu("lo", 1500).unwrap();
        for ip in [V4, V6] {
            for dont_fragment in [true, false] {
                let options = SocketOptions { may_fragment: !dont_fragment, ..large() };
                let (sender, _) = open(ip, options);
                let (receiver, _) = open(ip, large());
                let to = receiver.local_addr();
                let bytes = [6; 3000];
                // The shorter end of the second train fits.
                let sizes = [&[900; 5][..], &[3000; 7], &[200, 900, 900]].concat();
                let messages = sizes.iter().map(|size| (to, [&bytes[..10], &bytes[10..*size]]));
                let (outcomes, refusal) = send(&sender, 64, messages);
                for (size, outcome) in sizes.iter().zip(&outcomes) {
                    match outcome {
                        Ok(len) => assert!(len == size && !(dont_fragment && *len == 3000)),
                        Err(error) => {
                            assert!(dont_fragment && *size == 3000, "{size} bytes: {error}");
                            assert_eq!(underlay_reason(error), DropReason::UnderlayTooBig);
                        }
                    }
                }
                assert_eq!(outcomes.len(), sizes.len());
                // Where the kernel may fragment, one before 6.14 says EINVAL of the train.
                assert!(!dont_fragment || refusal.is_none(), "{refusal:?}");
                let lengths: Vec<usize> = drain(&receiver).0.iter().map(Vec::len).collect();
                let fitting = sizes.iter().filter(|size| !dont_fragment || **size < 3000);
                assert!(lengths.iter().eq(fitting));
            }
        }
    });
}

#[test]
fn a_full_socket_refuses_trains_with_the_rest() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        raise("ovl0");
        let options = SocketOptions { send_buffer: 8192, ..SocketOptions::default() };
        let (socket, _) = open(HOST.into(), options);
        // Nobody answers for this address, so that the datagrams wait, and fill the send buffer.
        let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 77).into(), 9);
        let payload = [0; 1000];
        let (results, refusal) = send(&socket, 8, (0..200).map(|_| (to, [&[][..], &payload[..]])));
        assert!(refusal.is_none());
        assert_eq!(results.len(), 200);
        let sent = results.iter().take_while(|result| result.is_ok()).count();
        assert!((8..64).contains(&sent) && sent.is_multiple_of(8), "{sent} sent");
        for result in &results[sent..] {
            assert_eq!(underlay_reason(result.as_ref().unwrap_err()), DropReason::UnderlayFull);
        }
        let _ = queue.receive(&mut Batch::new(4));
    });
}

/// What is cut counts as often as there are datagrams in what is left of it.
#[test]
fn trains_that_were_cut_are_left_out() {
    let (sender, _) = open(V4, large());
    let socket = open_joining(V4, large());
    let to = socket.local_addr();
    let mut kept = Vec::new();
    for (sizes, fits) in
        [(&[4, 4, 1][..], true), (&[4; 5], false), (&[3; 3], true), (&[11], false), (&[10], true)]
    {
        let sent = send_sizes(&sender, to, 64, sizes);
        kept.extend(sent.into_iter().filter(|_| fits));
    }
    let mut batch = Batch::new(8);
    let mut receiver = Receiver::new(8);
    let short = batch.free_slots().map(|slot| &mut slot[..10]);
    let count = receiver.group.receive(socket.as_fd(), short).unwrap();
    assert_eq!(count, 5);
    assert_eq!(receiver.commit(count, &mut batch), 3 + 1);
    let frames: Vec<&[u8]> = (0..batch.len()).map(|index| batch.frame(index)).collect();
    assert_eq!(frames, kept);
    assert_eq!(batch.free(), 5);
}

/// A device may hand in trains that are longer than any socket can send.
#[test]
fn a_train_of_too_many_datagrams_is_counted_and_left_out() {
    in_new_netns(|| {
        let mut queue = single(Device::tap("ovl0").unwrap());
        raise("ovl0");
        let socket = open_joining(HOST.into(), large());
        let payload: Vec<u8> = (0..2 * (MAX_TRAIN + 30)).map(|n| n as u8).collect();
        for (parts, truncated) in
            [(3, 0), (MAX_TRAIN, 0), (MAX_TRAIN + 1, MAX_TRAIN + 1), (150, 150)]
        {
            let port = socket.local_addr().port();
            let payload = &payload[..2 * parts];
            let (frame, partial) = datagram(DeviceKind::Tap, port, payload, true);
            let vnet = VnetHeader { gso_type: 5, gso_size: 2, hdr_len: 42, ..partial };
            let (single, plain) = datagram(DeviceKind::Tap, port, b"single", true);
            match queue.deliver(vnet, Metadata::default(), [&frame[..]]) {
                // Linux 6.7 and later do not let them in any more.
                Err(error) if parts > MAX_TRAIN => {
                    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
                    continue;
                }
                delivered => assert_eq!(delivered.unwrap(), frame.len()),
            }
            queue.deliver(plain, Metadata::default(), [&single[..]]).unwrap();
            let mut batch = Batch::new(8);
            let mut lost = 0;
            let end = Instant::now() + Duration::from_secs(5);
            while batch.is_empty() || batch.frame(batch.len() - 1) != b"single" {
                assert!(Instant::now() < end, "{parts} parts: {lost} lost, {} here", batch.len());
                lost += socket.receive(&mut Receiver::new(8), &mut batch).truncated;
            }
            assert_eq!(lost, truncated, "{parts} parts");
            let chunks: Vec<&[u8]> = (0..batch.len() - 1).map(|at| batch.frame(at)).collect();
            let expected: Vec<&[u8]> = payload.chunks(2).filter(|_| truncated == 0).collect();
            assert_eq!(chunks, expected);
        }
    });
}

#[test]
fn gro_is_switched_off_between_trains_only() {
    let (sender, _) = open(V4, large());
    let socket = open_joining(V4, large());
    let to = socket.local_addr();
    let sent = send_sizes(&sender, to, 64, &[70; 10]);
    assert!(!socket.set_gro(false).unwrap(), "a train is waiting");
    assert!(drain(&socket) == (sent, 1));
    assert!(socket.set_gro(false).unwrap());
    assert!(socket.set_gro(false).unwrap());
    let sent = send_sizes(&sender, to, 64, &[70; 10]);
    assert!(drain(&socket) == (sent, 10));
    assert!(socket.set_gro(true).unwrap());
    let sent = send_sizes(&sender, to, 64, &[70; 10]);
    assert!(drain(&socket) == (sent, 1));
}

#[test]
fn busy_polling_does_no_harm() {
    let options = SocketOptions { busy_poll: Some(u32::MAX), ..large() };
    let socket = open_joining(V4, options);
    let options = SocketOptions { busy_poll: Some(20), ..large() };
    let socket = open_joining(socket.local_addr().ip(), options);
    let sent = send_sizes(&socket, socket.local_addr(), 64, &[5; 3]);
    assert!(drain(&socket).0 == sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What arrives at each address is what was sent there, in order, however it is put into trains.
    #[test]
    fn every_address_receives_what_was_sent_to_it(
        datagrams in prop::collection::vec(
            (
                0..3_usize,
                prop_oneof![4 => Just(100_usize), 2 => 0..4_usize, 1 => 0..1400_usize, 2 => Just(1400)],
                0..1500_usize,
                1..20_usize,
            ),
            1..60,
        ),
        most in prop_oneof![Just(1_usize), Just(64), 1..64_usize],
        trains in any::<bool>(),
    ) {
        let (sender, _) = open(V4, large());
        let receivers =
            [open_joining(V4, large()), open(V4, large()).0, open_joining(V4, large())];
        // Runs of datagrams of one length to one address are what makes trains.
        let list: Vec<(usize, Vec<u8>, usize)> = datagrams
            .iter()
            .flat_map(|(to, len, cut, times)| std::iter::repeat_n((*to, *len, *cut), *times))
            .enumerate()
            .map(|(n, (to, len, cut))| {
                let bytes: Vec<u8> = (0..len).map(|at| (at ^ n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
                (to, bytes, cut.min(len))
            })
            .collect();
        let messages = list.iter().map(|(to, bytes, cut)| {
            (receivers[*to].local_addr(), bytes.split_at(*cut).into())
        });
        let mut lengths = Vec::new();
        let refusal = SendQueue::new(most).send(&sender, messages, trains, |index, outcome| {
            assert_eq!(index, lengths.len());
            lengths.push(outcome.unwrap());
        });
        prop_assert!(refusal.is_none());
        prop_assert!(lengths.into_iter().eq(list.iter().map(|(_, bytes, _)| bytes.len())));
        for (receiver, socket) in receivers.iter().enumerate() {
            let expected = list.iter().filter(|(to, ..)| *to == receiver).map(|(_, bytes, _)| bytes);
            let (frames, _) = drain(socket);
            prop_assert!(frames.iter().eq(expected), "receiver {}", receiver);
        }
    }
}
