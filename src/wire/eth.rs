//! Ethernet: addresses, header layout and type numbers (IEEE 802.3 clause 3, RFC 9542).

use std::fmt;
use std::str::FromStr;

use super::array_at;

/// Length in bytes of an Ethernet header: destination, source, type (IEEE 802.3 §3.1.1).
pub const HEADER_LEN: usize = 14;

/// Length in bytes of one VLAN tag (IEEE 802.1Q §9.3).
pub const VLAN_TAG_LEN: usize = 4;

/// Where a VLAN tag is in a frame, in bytes: behind both addresses (IEEE 802.1Q §9.1).
pub(crate) const TAG_OFFSET: usize = 12;

/// EtherType of IPv4 (RFC 894).
pub const TYPE_IPV4: u16 = 0x0800;

/// EtherType of ARP (RFC 826).
pub const TYPE_ARP: u16 = 0x0806;

/// EtherType of a customer VLAN tag (IEEE 802.1Q §9.6).
pub const TYPE_VLAN: u16 = 0x8100;

/// EtherType of IPv6 (RFC 2464 §3).
pub const TYPE_IPV6: u16 = 0x86dd;

/// EtherType of a service VLAN tag, "QinQ" (IEEE 802.1Q §9.6).
pub const TYPE_QINQ: u16 = 0x88a8;

/// The bits of a tag that are the VLAN identifier (IEEE 802.1Q §9.6).
pub(crate) const VID_MASK: u16 = 0x0fff;

/// The two bytes behind the type of a customer VLAN tag, if the frame has one: priority and VLAN.
#[inline]
pub(crate) fn vlan_tag(frame: &[u8]) -> Option<u16> {
    let tag: [u8; VLAN_TAG_LEN] = *array_at(frame, TAG_OFFSET)?;
    let [a, b, c, d] = tag;
    (u16::from_be_bytes([a, b]) == TYPE_VLAN).then_some(u16::from_be_bytes([c, d]))
}

/// A 48-bit Ethernet address, in the order it has on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of every station, `ff:ff:ff:ff:ff:ff` (IEEE 802.3 §3.2.3.1).
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// The address of none, `00:00:00:00:00:00`; never a valid source.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether the address names a group, broadcast included (the I/G bit, IEEE 802.3 §3.2.3).
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether the address is all zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// Whether the address is that of one station: neither a group's nor zero.
    #[inline]
    pub const fn is_individual(self) -> bool {
        !self.is_multicast() && !self.is_zero()
    }

    /// Whether the address is one that bridges never forward, `01:80:c2:00:00:00` to `0f` (IEEE
    /// 802.1Q §8.6.3).
    ///
    /// STP, LACP, LLDP and pause frames go there: they speak to the next device, not to the
    /// segment.
    #[inline]
    pub const fn is_link_local_control(self) -> bool {
        MacNumber(self.to_u64()).is_link_local_control()
    }

    /// The address as a number below 2^48, the first byte on the wire being the most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address that [`to_u64`](Self::to_u64) made this number from; the upper 16 bits are
    /// ignored.
    #[inline]
    pub const fn from_u64(number: u64) -> MacAddr {
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }
}

/// For how many stations a frame is, by its destination address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cast {
    /// For one.
    #[default]
    Unicast,
    /// For a group other than everybody.
    Multicast,
    /// For everybody.
    Broadcast,
}

impl Cast {
    /// That of a whole Ethernet frame; what is too short to have a destination is for one.
    #[inline]
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        match frame.first() {
            Some(first) if first & 1 != 0 => Self::of_group(frame),
            _ => Self::Unicast,
        }
    }

    /// That of a frame to an address.
    #[inline]
    pub(crate) fn to(address: MacNumber) -> Self {
        match (address.is_multicast(), address.is_broadcast()) {
            (false, _) => Self::Unicast,
            (true, false) => Self::Multicast,
            (true, true) => Self::Broadcast,
        }
    }

    #[cold]
    fn of_group(frame: &[u8]) -> Self {
        if frame.starts_with(&MacAddr::BROADCAST.0) { Self::Broadcast } else { Self::Multicast }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(bytes: [u8; 6]) -> MacAddr {
        MacAddr(bytes)
    }
}

/// The text is not an Ethernet address: six pairs of hexadecimal digits, all separated by `:` or
/// all by `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an Ethernet address (expected six hexadecimal pairs such as 02:00:00:00:00:01)",
        )
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<MacAddr, ParseMacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(ParseMacError)?;
            // from_str_radix takes a sign, an address does not.
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseMacError)?;
        }
        if pairs.next().is_some() { Err(ParseMacError) } else { Ok(MacAddr(bytes)) }
    }
}

/// A MAC address as the number of [`MacAddr::to_u64`]: one load, one comparison, one multiplication.
///
/// What the forwarding path handles in place of a [`MacAddr`], which the compiler would take apart into six bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MacNumber(u64);

impl MacNumber {
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// See [`MacAddr::is_multicast`].
    #[inline]
    pub(crate) const fn is_multicast(self) -> bool {
        self.0 & 1 << 40 != 0
    }

    /// See [`MacAddr::is_individual`].
    #[inline]
    pub(crate) const fn is_individual(self) -> bool {
        !self.is_multicast() && self.0 != 0
    }

    /// Whether the address is [`MacAddr::BROADCAST`].
    #[inline]
    pub(crate) const fn is_broadcast(self) -> bool {
        self.0 == MacAddr::BROADCAST.to_u64()
    }

    /// See [`MacAddr::is_link_local_control`].
    #[inline]
    pub(crate) const fn is_link_local_control(self) -> bool {
        self.0 & !0xf == 0x0180_c200_0000
    }
}

impl From<MacAddr> for MacNumber {
    #[inline]
    fn from(mac: MacAddr) -> MacNumber {
        MacNumber(mac.to_u64())
    }
}

impl From<MacNumber> for MacAddr {
    #[inline]
    fn from(number: MacNumber) -> MacAddr {
        MacAddr::from_u64(number.0)
    }
}

/// The header of a frame without VLAN tags.
#[inline]
pub(crate) const fn header(to: MacNumber, from: MacNumber, ethertype: u16) -> [u8; HEADER_LEN] {
    let upper = (to.0 << 16 | from.0 >> 32).to_be_bytes();
    let lower = ((from.0 & 0xffff_ffff) << 16 | ethertype as u64).to_be_bytes();
    let [a, b, c, d, e, f, g, h] = upper;
    let [_, _, i, j, k, l, m, n] = lower;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

/// [`addresses`] as numbers.
#[inline]
pub(crate) fn address_numbers(frame: &[u8]) -> Option<(MacNumber, MacNumber)> {
    let header = array_at::<HEADER_LEN>(frame, 0)?;
    let number = |at| array_at(header, at).map(|bytes| u64::from_be_bytes(*bytes) >> 16);
    Some((MacNumber(number(0)?), MacNumber(number(6)?)))
}

/// The destination and the source of a frame, in this order; `None` under 14 bytes.
#[inline]
pub fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let header = array_at::<HEADER_LEN>(frame, 0)?;
    Some((MacAddr(*array_at(header, 0)?), MacAddr(*array_at(header, 6)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_addresses() {
        let mac = MacAddr([2, 0, 0, 0, 0xab, 1]);
        assert_eq!(mac.to_string(), "02:00:00:00:ab:01");
        assert_eq!(format!("{mac:?}"), "02:00:00:00:ab:01");
        assert_eq!("02:00:00:00:AB:01".parse(), Ok(mac));
        assert_eq!("02-00-00-00-ab-01".parse(), Ok(mac));
        for bad in [
            "",
            ":",
            "02:00:00:00:ab",
            "02:00:00:00:ab:01:02",
            "2:0:0:0:ab:1",
            "02:00:00:00:ab:+1",
            "02:00-00:00:ab:01",
            "02:00:00:00:ab:0g",
            "02:00:00:00:ab:01 ",
            "02:00:00:00:ab:é",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(ParseMacError), "{bad:?}");
        }
    }

    #[test]
    fn tells_kinds_of_addresses_apart() {
        assert!(MacAddr::BROADCAST.is_multicast());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        assert!(!MacAddr([2, 0, 0, 0, 0, 1]).is_multicast());
        assert!(MacNumber::from(MacAddr([0x33, 0x33, 0, 0, 0, 1])).is_multicast());
        assert!(!MacNumber::from(MacAddr([2, 1, 1, 1, 1, 1])).is_multicast());
        assert!(MacNumber::from(MacAddr::BROADCAST).is_broadcast());
        assert!(!MacNumber::from(MacAddr([0x33, 0x33, 0, 0, 0, 1])).is_broadcast());
        assert!(MacAddr::ZERO.is_zero() && MacAddr::default().is_zero());
        assert!(!MacAddr([0, 0, 0, 0, 0, 1]).is_zero());
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0]).is_link_local_control());
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local_control());
        assert!(!MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local_control());
        assert!(!MacAddr([0, 0x80, 0xc2, 0, 0, 0]).is_link_local_control());
    }

    #[test]
    fn numbers_keep_the_order_of_addresses() {
        let mac = MacAddr([1, 2, 3, 4, 5, 6]);
        assert_eq!(mac.to_u64(), 0x0102_0304_0506);
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        assert_eq!(MacAddr::from_u64(u64::MAX), MacAddr::BROADCAST);
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let [to, from] =
            [MacAddr([2, 0xff, 3, 4, 0xfe, 6]), MacAddr([0x12, 8, 0xf9, 10, 11, 0xfc])];
        let header = header(to.into(), from.into(), TYPE_IPV6);
        assert_eq!(addresses(&header), Some((to, from)));
        assert_eq!(header[12..], TYPE_IPV6.to_be_bytes());
    }

    #[test]
    fn a_frame_needs_fourteen_bytes() {
        let frame: Vec<u8> = (0..14).collect();
        assert_eq!(
            addresses(&frame),
            Some((MacAddr([0, 1, 2, 3, 4, 5]), MacAddr([6, 7, 8, 9, 10, 11])))
        );
        assert_eq!(addresses(&frame[..13]), None);
        let numbers = addresses(&frame).map(|(to, from)| (to.into(), from.into()));
        assert_eq!(address_numbers(&frame), numbers);
        assert_eq!(address_numbers(&frame[..13]), None);
    }
}
