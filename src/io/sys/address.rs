//! Socket addresses as the kernel reads and writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A `sockaddr_in` or `sockaddr_in6`: family, port, then the address at 4, or flow information at 4, the address at 8
/// and the scope at 24.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    bytes: [u8; 28],
}

const V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
const V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

impl RawAddress {
    /// Bytes of the longest address.
    pub(super) const LEN: libc::socklen_t = 28;

    pub(super) const EMPTY: Self = Self { bytes: [0; 28] };

    /// Writes `address` and returns its length in bytes.
    pub(super) fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        self.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                self.bytes[..2].copy_from_slice(&V4.to_ne_bytes());
                self.bytes[4..8].copy_from_slice(&v4.ip().octets());
                self.bytes[8..16].fill(0);
                16
            }
            SocketAddr::V6(v6) => {
                self.bytes[..2].copy_from_slice(&V6.to_ne_bytes());
                self.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                self.bytes[8..24].copy_from_slice(&v6.ip().octets());
                self.bytes[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
                Self::LEN
            }
        }
    }

    /// The address of which the kernel wrote `len` bytes; `None` for other families and when it is cut short.
    pub(super) fn get(&self, len: libc::socklen_t) -> Option<SocketAddr> {
        let bytes = &self.bytes;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match libc::sa_family_t::from_ne_bytes([bytes[0], bytes[1]]) {
            V4 if len >= 8 => {
                Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(word(4)), port)))
            }
            V6 if len >= Self::LEN => {
                let mut ip = [0; 16];
                ip.copy_from_slice(&bytes[8..24]);
                let flow = u32::from_ne_bytes(word(4));
                let scope = u32::from_ne_bytes(word(24));
                Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_trip_through_bytes() {
        let mut raw = RawAddress::EMPTY;
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 4789, 7, 3);
        for address in [
            SocketAddr::V6(link_local),
            "192.0.2.1:4789".parse().unwrap(),
            "[::]:0".parse().unwrap(),
        ] {
            let len = raw.set(address);
            assert_eq!(raw.get(len), Some(address));
            assert_eq!(raw.get(2), None);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_c_structures() {
        let mut raw = RawAddress::EMPTY;
        for address in ["192.0.2.1:4789", "[2001:db8::5]:80"] {
            let address: SocketAddr = address.parse().unwrap();
            let len = raw.set(address) as usize;
            let same = socket2::SockAddr::from(address);
            assert_eq!(len, same.len() as usize);
            // SAFETY: `same` holds `len` initialised bytes.
            let theirs = unsafe { std::slice::from_raw_parts(same.as_ptr().cast::<u8>(), len) };
            assert_eq!(&raw.bytes[..len], theirs);
        }
    }

    #[test]
    fn other_families_are_refused() {
        let mut raw = RawAddress::EMPTY;
        assert_eq!(raw.get(RawAddress::LEN), None);
        raw.bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(raw.get(RawAddress::LEN), None);
    }
}
