//! Which kernels spoil which offloads, where no self-test can tell.

use crate::offload::Offload;

use super::sys;

/// A version of Linux, such as 6.12.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u16, u16, u16);

impl Version {
    /// Reads a release as `uname -r` prints it: `6.12.4-generic`, `5.12.0-rc1+`, `6.1`; what follows the numbers does
    /// not count, so that a release candidate is taken for its release.
    pub(crate) fn parse(release: &str) -> Option<Self> {
        let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
        let mut numbers = release[..end].split('.').take_while(|number| !number.is_empty());
        let mut next = || numbers.next().map(|number| number.parse().ok());
        Some(Self(next()??, next()??, next().unwrap_or(Some(0))?))
    }

    /// The version of the running kernel; `None` if it does not look like one.
    pub(crate) fn running() -> Option<Self> {
        Self::parse(&sys::kernel_release().ok()?)
    }
}

/// An offload that does harm on some kernels.
struct Bug {
    offload: Offload,
    from: Version,
    /// First version without it.
    until: Version,
    why: &'static str,
}

const FIRST: Version = Version(0, 0, 0);

const BUGS: &[Bug] = &[
    Bug {
        offload: Offload::UdpGro,
        from: FIRST,
        until: Version(5, 12, 0),
        // wireguard-go c92064f
        why: "before Linux 5.12, UDP_GRO has bugs",
    },
    Bug {
        offload: Offload::UdpGso,
        from: Version(7, 0, 0),
        until: Version(7, 1, 5),
        // Kernel b10b446, fixed by 78effd8 and 5f17ae0; tailscale#19777
        why: "Linux 7.0 to 7.1.4 mangle the last datagram of a train if it is as long as the others",
    },
    Bug {
        offload: Offload::CoalesceUdp,
        from: Version(7, 0, 0),
        until: Version(7, 1, 5),
        // As above.
        why: "Linux 7.0 to 7.1.4 mangle the last chunk of a UDP super-frame if it is as long as the others",
    },
    Bug {
        offload: Offload::CoalesceUdp,
        from: FIRST,
        until: Version(6, 8, 5),
        // tailscale#11026
        why: "before Linux 6.8.5, kernel VXLAN and Geneve devices drop UDP super-frames",
    },
    Bug {
        offload: Offload::CoalesceUdp,
        from: FIRST,
        until: Version(6, 2, 0),
        // Kernel `include/uapi/linux/virtio_net.h`, `VIRTIO_NET_HDR_GSO_UDP_L4`
        why: "before Linux 6.2, devices take no UDP super-frames",
    },
    Bug {
        offload: Offload::Uso,
        from: FIRST,
        until: Version(6, 2, 0),
        // Kernel `include/uapi/linux/if_tun.h`, `TUN_F_USO4`
        why: "before Linux 6.2, devices give no UDP super-frames",
    },
];

/// The offloads that a kernel is known to spoil, each with the reason; some have more than one.
pub(crate) fn spoiled(version: Version) -> impl Iterator<Item = (Offload, &'static str)> {
    let hit = move |bug: &&Bug| (bug.from..bug.until).contains(&version);
    BUGS.iter().filter(hit).map(|bug| (bug.offload, bug.why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::offload::Offloads;

    #[test]
    fn releases_are_read_as_they_are_printed() {
        for (release, version) in [
            ("6.18.44-foo", Version(6, 18, 44)),
            ("5.12.0-rc1+", Version(5, 12, 0)),
            ("7.0-rc1", Version(7, 0, 0)),
            ("6.1", Version(6, 1, 0)),
            ("6.1+", Version(6, 1, 0)),
            ("4.18.0-553.el8_10.x86_64", Version(4, 18, 0)),
            ("5.15.167.4-microsoft-standard-WSL2", Version(5, 15, 167)),
            ("6.12.4.", Version(6, 12, 4)),
        ] {
            assert_eq!(Version::parse(release), Some(version), "{release}");
        }
        for release in
            ["", "6", "6.", "6.x", "linux", "-6.1", ".6.1", "6..1", "99999999.1", "6.1.70000"]
        {
            assert_eq!(Version::parse(release), None, "{release}");
        }
        assert!(Version::running().is_some_and(|version| version > Version(3, 0, 0)));
    }

    fn offloads(release: &str) -> Offloads {
        spoiled(Version::parse(release).unwrap()).map(|(offload, _)| offload).collect()
    }

    #[test]
    fn each_bug_begins_and_ends_where_it_should() {
        use Offload::{CoalesceUdp, UdpGro, UdpGso, Uso};
        let set = |offloads: &[Offload]| offloads.iter().copied().collect::<Offloads>();
        for (release, expected) in [
            ("4.18.0", set(&[CoalesceUdp, UdpGro, Uso])),
            ("5.11.22", set(&[CoalesceUdp, UdpGro, Uso])),
            ("5.12.0", set(&[CoalesceUdp, Uso])),
            ("6.1.99", set(&[CoalesceUdp, Uso])),
            ("6.2.0", set(&[CoalesceUdp])),
            ("6.8.4", set(&[CoalesceUdp])),
            ("6.8.5", Offloads::NONE),
            ("6.18.44", Offloads::NONE),
            ("6.19.99", Offloads::NONE),
            ("7.0.0", set(&[CoalesceUdp, UdpGso])),
            ("7.1.4", set(&[CoalesceUdp, UdpGso])),
            ("7.1.5", Offloads::NONE),
            ("8.0.0", Offloads::NONE),
        ] {
            assert_eq!(offloads(release), expected, "{release}");
        }
        assert_eq!(spoiled(Version(6, 1, 0)).count(), 3, "each reason is told");
    }

    #[test]
    fn bugs_say_which_kernels_have_them() {
        for bug in BUGS {
            assert!(bug.from < bug.until && bug.why.contains("Linux "), "{}", bug.why);
        }
    }
}
