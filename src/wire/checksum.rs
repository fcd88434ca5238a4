//! The Internet checksum (RFC 1071): sums, pseudo-headers and incremental updates.
//!
//! A *sum* is folded to 16 bits and not complemented; its value is the big-endian number that would
//! stand in the checksum field. Ones' complement has two zeros: a sum is `0` only when every byte
//! was zero, else a multiple of 65535 is `0xffff`.

/// Bytes per step of the main loop of [`sum`]: four 128-bit registers.
const STEP: usize = 64;

/// 32-bit lanes per step.
const LANES: usize = STEP / 4;

/// Ones' complement sum of `bytes` as big-endian 16-bit words, an odd last byte padded with zero
/// (RFC 1071 §1).
///
/// To join sums of two pieces of one buffer use [`add`] when the second piece starts at an even
/// offset and [`add_at_odd`] when it starts at an odd one.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // RFC 1071 §2(B): the sum does not depend on byte order, so add in native order and swap once
    // at the end.
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let mut total = if steps.is_empty() { 0 } else { sum_steps(steps) };
    let (words, tail) = rest.as_chunks::<8>();
    let halves = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        (word >> 32) + (word & 0xffff_ffff)
    };
    for word in words {
        total += halves(*word);
    }
    if !tail.is_empty() {
        let mut last = [0u8; 8];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        total += halves(last);
    }
    u16::from_be(fold(total))
}

/// Sum of native 32-bit words, not folded.
///
/// 32-bit words in 64-bit accumulators cannot overflow below 2^34 bytes, which leaves the loop free
/// of carries: the compiler turns it into vector code for the baseline target. Never inlined, so
/// that the code is the same wherever it is called from.
#[inline(never)]
fn sum_steps(steps: &[[u8; STEP]]) -> u64 {
    let mut lanes = [0u64; LANES];
    for step in steps {
        let (words, _) = step.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

/// Folds a wide sum of 16-bit words to 16 bits, adding the carries back in (RFC 1071 §2(A)).
#[inline]
pub(crate) const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// Adds two sums with end-around carry (RFC 1071 §1).
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow: a carry leaves at most 0xfffe.
    if carry { sum + 1 } else { sum }
}

/// Adds to `a` the sum `b` of bytes that start at an odd offset from where `a` starts.
///
/// Shifting by one byte swaps the two halves of every word, and so of the sum (RFC 1071 §2(B)).
#[inline]
pub const fn add_at_odd(a: u16, b: u16) -> u16 {
    add(a, b.swap_bytes())
}

/// The checksum field for a sum: its complement (RFC 1071 §1).
///
/// May be zero; UDP reserves zero for "no checksum" and sends `0xffff` instead (RFC 768), see
/// [`l4::complete`](super::l4::complete).
#[inline]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// The checksum field after one 16-bit word that it covers changed from `old` to `new` (RFC 1624
/// §3, equation 3).
///
/// All in host order. The word must stand at an even offset from where the checksum starts.
#[inline]
pub const fn update(check: u16, old: u16, new: u16) -> u16 {
    !add(add(!check, !old), new)
}

/// Sum of the pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1, RFC 768).
///
/// `len` is the length in bytes of the L4 header and its payload.
#[inline]
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], proto: u8, len: u16) -> u16 {
    fold(
        u64::from(u32::from_be_bytes(src))
            + u64::from(u32::from_be_bytes(dst))
            + u64::from(proto)
            + u64::from(len),
    )
}

/// Sum of the pseudo-header of upper-layer protocols over IPv6 (RFC 8200 §8.1).
///
/// `next` is the upper-layer protocol, not the first extension header; `len` is the length in bytes
/// of the L4 header and its payload, without extension headers.
#[inline]
pub fn pseudo_v6(src: [u8; 16], dst: [u8; 16], next: u8, len: u32) -> u16 {
    let mut total = u64::from(next) + u64::from(len);
    for address in [u128::from_be_bytes(src), u128::from_be_bytes(dst)] {
        let (high, low) = ((address >> 64) as u64, address as u64);
        total += (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff);
    }
    fold(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(finish(sum(&bytes)), 0x220d);
    }

    #[test]
    fn updates_the_example_of_rfc_1624() {
        // §4: equation 3 yields 0x0000 here where equation 2 yields 0xffff, a value no fresh
        // checksum has.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn pads_an_odd_tail_and_keeps_both_zeros() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0; 70]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
        assert_eq!(sum(&[0xff; 64]), 0xffff);
        assert_eq!(sum(&[0xff; 65]), add(0xffff, 0xff00));
    }

    #[test]
    fn pseudo_headers_equal_the_sum_of_their_bytes() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0, 17, 0x05, 0xdc];
        assert_eq!(pseudo_v4([192, 0, 2, 1], [198, 51, 100, 7], 17, 0x05dc), sum(&v4));

        let (src, dst) = ([0xfe; 16], [0x9d; 16]);
        let mut v6 = [0u8; 40];
        v6[..16].copy_from_slice(&src);
        v6[16..32].copy_from_slice(&dst);
        v6[32..36].copy_from_slice(&70_000u32.to_be_bytes());
        v6[39] = 6;
        assert_eq!(pseudo_v6(src, dst, 6, 70_000), sum(&v6));
    }

    #[test]
    fn folds_the_largest_accumulator() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
    }
}
