//! What the underlay says of datagrams that were sent.

use super::*;

/// Sends a datagram to each address, as trains where they follow each other; all have to be taken. Returns what was found
/// out of paths.
fn send(socket: &UdpSocket, to: &[SocketAddr], max_train: usize) -> Vec<PathLesson> {
    let mut queue = SendQueue::new(max_train);
    let messages = to.iter().map(|to| (*to, [&b"data"[..], b"gram"]));
    let refusal = queue.send(socket, messages, max_train > 1, |index, outcome| {
        assert_eq!(outcome.unwrap(), 8, "datagram {index} to {}", to[index]);
    });
    assert!(refusal.is_none(), "{refusal:?}");
    queue.news().drain().collect()
}

#[test]
fn nobody_pays_for_what_is_refused_by_another() {
    for ip in [V4, V6] {
        let (socket, _) = open(ip, large());
        let (receiver, _) = open(ip, large());
        let there = receiver.local_addr();
        // Whoever had this port is gone, and the host says so of every datagram, at once.
        let nobody = open(ip, large()).0.local_addr();
        for max_train in [1, 4] {
            let to: Vec<SocketAddr> =
                (0..120).map(|n| if n % 6 == 0 { nobody } else { there }).collect();
            assert_eq!(send(&socket, &to, max_train), []);
            let mut batch = Batch::new(200);
            assert!(receiver.receive(&mut Receiver::new(200), &mut batch).drained);
            assert_eq!(batch.len(), 100, "in trains of {max_train}");
        }
    }
}

#[test]
fn what_this_node_refuses_teaches_the_path() {
    in_new_netns(|| {
        testing::set_mtu("lo", 1400).unwrap();
        for ip in [V4, V6] {
            let (socket, _) = open(ip, SocketOptions { may_fragment: false, ..large() });
            let to = open(ip, large()).0.local_addr();
            let mut queue = SendQueue::new(4);
            let payload = [0; 3000];
            let mut refused = 0;
            let messages = [3000, 100, 3000, 3000].map(|len| (to, [&payload[..len], b""]));
            let refusal = queue.send(&socket, messages, true, |_, outcome| {
                refused += usize::from(outcome.is_err());
            });
            assert!(refusal.is_none());
            assert_eq!(refused, 3);
            let lesson = PathLesson { to: ip, mtu: 1400, local: true };
            assert_eq!(queue.news().drain().collect::<Vec<_>>(), [lesson]);
            assert!(queue.news().is_empty());
        }
    });
}

#[test]
fn a_socket_that_only_sends_has_room_for_errors_alone() {
    for ip in [V4, V6] {
        let (socket, _) = open(ip, SocketOptions { sends_only: true, ..large() });
        let (other, _) = open(ip, large());
        send(&other, &[socket.local_addr(); 10], 1);
        let mut batch = Batch::new(20);
        assert!(socket.receive(&mut Receiver::new(20), &mut batch).drained);
        assert_eq!(batch.len(), 0);
        // It still hears what becomes of its own.
        let nobody = open(ip, large()).0.local_addr();
        send(&socket, &[nobody; 3], 1);
        assert!(SendQueue::new(1).news().hear_router(&socket));
    }
}
