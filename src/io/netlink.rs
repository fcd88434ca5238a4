//! The little of rtnetlink that is needed: asking about one link.

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg` (kernel `include/uapi/linux/netlink.h` and `rtnetlink.h`).
pub(super) const NLMSG: usize = 16;
pub(super) const IFINFO: usize = 16;

pub(super) const NLM_F_REQUEST: u16 = 1;
#[cfg(test)]
const NLM_F_ACK: u16 = 4;

// Attributes (kernel `include/uapi/linux/if_link.h`).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;

/// Attached queues of the multi-queue TAP or TUN `name` in the network namespace of the calling thread; `None` if the
/// kernel does not say (before 4.17).
pub(super) fn attached_queues(name: &str) -> Option<u32> {
    let answer = ask(libc::RTM_GETLINK, 0, name, None).ok()?;
    let link = attribute(answer.get(NLMSG + IFINFO..)?, IFLA_LINKINFO)?;
    let data = attribute(link, IFLA_INFO_DATA)?;
    let queues = attribute(data, IFLA_TUN_NUM_QUEUES)?;
    queues.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Changes the link `name`, giving it an attribute.
#[cfg(test)]
pub(super) fn change(name: &str, request: u16, attribute: Option<(u16, u32)>) -> io::Result<()> {
    ask(request, NLM_F_ACK, name, attribute).map(drop)
}

/// Sends a request about the link `name` and returns the answer, unless it is an error.
fn ask(request: u16, flags: u16, name: &str, attribute: Option<(u16, u32)>) -> io::Result<Vec<u8>> {
    let name = [name.as_bytes(), b"\0"].concat();
    let value = attribute.map(|(kind, value)| (kind, value.to_ne_bytes()));
    let value = value.iter().map(|(kind, value)| (*kind, &value[..]));
    let attributes: Vec<_> = [(IFLA_IFNAME, &name[..])].into_iter().chain(value).collect();
    let mut socket = open_to_ask()?;
    socket.write_all(&message(request, NLM_F_REQUEST | flags, &[0; IFINFO], &attributes))?;
    let mut answer = vec![0; 1 << 15];
    let len = socket.read(&mut answer)?;
    answer.truncate(len);
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let error = answer.get(16..20).and_then(<[u8]>::first_chunk);
    match (kind.map(i32::from), error.copied().map(i32::from_ne_bytes)) {
        (Some(libc::NLMSG_ERROR), Some(0)) | (Some(16..), _) => Ok(answer),
        (Some(libc::NLMSG_ERROR), Some(error)) => {
            Err(io::Error::from_raw_os_error(error.wrapping_neg()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A socket to ask the kernel.
pub(super) fn open_to_ask() -> io::Result<Socket> {
    let socket = open()?;
    // The kernel has answered when the request returns; this is for a kernel that does not.
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

pub(super) fn open() -> io::Result<Socket> {
    Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, None)
}

/// A message to the kernel: `struct nlmsghdr`, the header of its kind, and attributes.
pub(super) fn message(
    kind: u16,
    flags: u16,
    header: &[u8],
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut message = vec![0; NLMSG];
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(header);
    for (kind, value) in attributes {
        push(&mut message, *kind, value);
    }
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The value of the first attribute `wanted` in a list.
pub(super) fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    const KIND: u16 = 0x3fff;
    loop {
        let &[a, b, c, d] = list.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = list.get(4..len)?;
        if u16::from_ne_bytes([c, d]) & KIND == wanted {
            return Some(value);
        }
        list = list.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_lists_end() {
        let mut list = Vec::new();
        push(&mut list, 1, b"one");
        push(&mut list, 2 | 0x8000, b"nested");
        assert_eq!(attribute(&list, 1), Some(&b"one"[..]));
        assert_eq!(attribute(&list, 2), Some(&b"nested"[..]));
        assert_eq!(attribute(&list, 3), None);
        for len in 0..list.len() {
            let _ = attribute(&list[..len], 2);
        }
        assert_eq!(attribute(&[0; 64], 2), None, "a length of 0 does not turn in circles");
    }

    #[test]
    fn other_links_have_no_queues_to_count() {
        assert_eq!(attached_queues("lo"), None);
        assert_eq!(attached_queues("there-is-none"), None);
        assert!(ask(libc::RTM_GETLINK, 0, "there-is-none", None).is_err());
    }
}
