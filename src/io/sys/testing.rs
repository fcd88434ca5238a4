//! What tests need to do to the system.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use super::checked;
use super::ioctl::{Request, with_value};

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn new_netns() -> io::Result<()> {
    // SAFETY: takes no pointers, and changes nothing that Rust code relies on.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Takes `CAP_NET_ADMIN` from the calling thread.
pub(crate) fn drop_net_admin() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 1 << 12;
    let header = [VERSION_3, 0];
    let mut sets = [[0_u32; 3]; 2];
    let (head, data) = (header.as_ptr(), sets.as_mut_ptr());
    // SAFETY: `head` points to a version and a thread, `data` to two triples of capability sets.
    let result = unsafe { libc::syscall(libc::SYS_capget, head, data) };
    checked(result as i32)?;
    sets[0][0] &= !NET_ADMIN;
    sets[0][1] &= !NET_ADMIN;
    let (head, data) = (header.as_ptr(), sets.as_ptr());
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, head, data) };
    checked(result as i32)?;
    Ok(())
}

/// Lets a device live on after its last file is closed.
pub(crate) fn set_persist(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    with_value(fd, libc::TUNSETPERSIST, u32::from(on))?;
    Ok(())
}

fn request(
    name: &str,
    code: libc::c_ulong,
    fill: impl FnOnce(&mut Request),
) -> io::Result<Request> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut request = Request::new(name);
    fill(&mut request);
    request.issue(socket.as_fd(), code as libc::Ioctl)?;
    Ok(request)
}

/// Sets the link of a device up or down.
pub(crate) fn set_up(name: &str, up: bool) -> io::Result<()> {
    let mut flags = request(name, libc::SIOCGIFFLAGS, |_| ())?.flags();
    flags &= !(libc::IFF_UP as u16);
    if up {
        flags |= libc::IFF_UP as u16;
    }
    request(name, libc::SIOCSIFFLAGS, |request| request.set_flags(flags))?;
    Ok(())
}

/// Sets the MTU of a device in bytes.
pub(crate) fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let fill = |request: &mut Request| request.value[..4].copy_from_slice(&mtu.to_ne_bytes());
    request(name, libc::SIOCSIFMTU, fill)?;
    Ok(())
}

/// Gives a device an address, with a prefix of 8 bits.
pub(crate) fn set_address(name: &str, address: Ipv4Addr) -> io::Result<()> {
    let set = |code: libc::c_ulong, address: Ipv4Addr| {
        request(name, code, |request| {
            request.value[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            request.value[4..8].copy_from_slice(&address.octets());
        })
    };
    set(libc::SIOCSIFADDR, address)?;
    set(libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 0, 0, 0))?;
    Ok(())
}

/// Whether the kernel may hand TCP super-frames to the reader of a device.
pub(crate) fn tso(name: &str) -> io::Result<bool> {
    const ETHTOOL_GTSO: u32 = 0x1e;
    let mut command = [ETHTOOL_GTSO, 0];
    let fill = |request: &mut Request| {
        let address = command.as_mut_ptr().expose_provenance();
        request.value[..size_of::<usize>()].copy_from_slice(&address.to_ne_bytes());
    };
    request(name, libc::SIOCETHTOOL, fill)?;
    // The kernel has written to it behind the compiler's back.
    Ok(std::hint::black_box(command)[1] != 0)
}
