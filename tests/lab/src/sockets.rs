//! What is set on sockets that somebody else in this process has made.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Attempt;
use crate::{Namespace, sockopt};

/// `SO_NETNS_COOKIE` (kernel `include/uapi/asm-generic/socket.h`, Linux 5.14).
const NETNS_COOKIE: c_int = 71;

impl Namespace {
    /// Makes every UDP socket that this process has in the namespace at the address `local` send with or without
    /// checksum, and returns how many there are.
    ///
    /// Without, the kernel refuses `UDP_SEGMENT` with `EINVAL` (kernel `net/ipv4/udp.c`, `udp_send_skb`).
    ///
    /// # Errors
    ///
    /// When the kernel can not tell the namespaces of sockets apart (before Linux 5.14), or refuses.
    pub fn set_udp_checksums(&self, local: IpAddr, on: bool) -> io::Result<usize> {
        let set = || {
            let here = self.run(|| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
                sockopt::get::<u64>(&socket, libc::SOL_SOCKET, NETNS_COOKIE)
            })?;
            let mut count = 0;
            for socket in sockets()? {
                let namespace = sockopt::get::<u64>(&socket, libc::SOL_SOCKET, NETNS_COOKIE);
                let at = socket.local_addr()?.as_socket().map(|address| address.ip());
                let is_udp = socket.protocol()? == Some(Protocol::UDP);
                if namespace.ok() != Some(here) || !is_udp || at != Some(local) {
                    continue;
                }
                let (level, option) = match socket.domain()? {
                    Domain::IPV4 => (libc::SOL_SOCKET, libc::SO_NO_CHECK),
                    _ => (libc::SOL_UDP, libc::UDP_NO_CHECK6_TX),
                };
                sockopt::set(&socket, level, option, c_int::from(!on))?;
                count += 1;
            }
            Ok(count)
        };
        set().attempt(|| "setting the checksums of UDP sockets")
    }
}

/// A duplicate of every socket of this process.
fn sockets() -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // Another thread may have closed it meanwhile.
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok())
        else {
            continue;
        };
        if !is_socket {
            continue;
        }
        // SAFETY: duplicating takes no pointer and changes no descriptor; one that is not open is an error.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy >= 0 {
            // SAFETY: the kernel has just made this descriptor, for nobody else.
            found.push(Socket::from(unsafe { OwnedFd::from_raw_fd(copy) }));
        }
    }
    found.retain(|socket| socket.as_raw_fd() >= 0 && socket.r#type().is_ok());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::privileged;

    #[test]
    fn only_the_udp_sockets_of_the_address_change() -> io::Result<()> {
        if !privileged("only_the_udp_sockets_of_the_address_change") {
            return Ok(());
        }
        let (here, there) = (Namespace::new()?, Namespace::new()?);
        let open = |host: &Namespace, at: &'static str| host.run(|| UdpSocket::bind(at));
        let mine = [open(&here, "127.0.0.1:0")?, open(&here, "[::1]:0")?];
        let others = [open(&there, "127.0.0.1:0")?, open(&here, "127.0.0.2:0")?];
        let unchecked = |socket: &UdpSocket, level, option| -> io::Result<bool> {
            Ok(sockopt::get::<c_int>(socket, level, option)? != 0)
        };
        for on in [false, true] {
            for socket in &mine {
                assert_eq!(here.set_udp_checksums(socket.local_addr()?.ip(), on)?, 1);
            }
            assert_eq!(unchecked(&mine[0], libc::SOL_SOCKET, libc::SO_NO_CHECK)?, !on);
            assert_eq!(unchecked(&mine[1], libc::SOL_UDP, libc::UDP_NO_CHECK6_TX)?, !on);
            for other in &others {
                assert!(!unchecked(other, libc::SOL_SOCKET, libc::SO_NO_CHECK)?);
            }
        }
        Ok(())
    }
}
