//! Explicit congestion notification across a tunnel (RFC 6040).
//!
//! A router short of room marks a packet that says it can carry the mark instead of dropping it. It only sees the outer
//! header, so an encapsulator has to say there what the inner header says, and a decapsulator has to hand the mark on.
//!
//! The field is the lower two bits of the IPv4 TOS byte and of the IPv6 traffic class (RFC 3168 §5); arguments here can
//! be the whole byte, and results are the field alone.

/// The two bits of the field in its byte (RFC 3168 §5).
pub const MASK: u8 = 0b11;

/// The sender does not understand marks.
pub const NOT_ECT: u8 = 0b00;

/// The packet can be marked; since RFC 9331 for low latency, and stronger than [`ECT_0`].
pub const ECT_1: u8 = 0b01;

/// The packet can be marked.
pub const ECT_0: u8 = 0b10;

/// The packet was marked: congestion experienced.
pub const CE: u8 = 0b11;

/// The outer field for an inner one: a copy, "normal mode" (RFC 6040 §4.1).
///
/// Linux puts ECT(0) where the inner field is CE (kernel `include/net/inet_ecn.h`, `INET_ECN_encapsulate`), as RFC 3168
/// §9.1.1 had it. What arrives is the same, for the inner mark is there still.
#[inline]
pub const fn encapsulate(inner: u8) -> u8 {
    inner & MASK
}

/// The inner field after decapsulation, or `None` where the packet has to be dropped (RFC 6040 §4.2, figure 4).
///
/// That is so for a mark on a packet whose sender would not understand it: dropping is what tells such a sender of
/// congestion.
#[inline]
pub const fn decapsulate(outer: u8, inner: u8) -> Option<u8> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merging again changes nothing: frames that were merged with the same outer field agree in the inner one.
    #[test]
    fn decapsulation_is_idempotent_and_reads_the_field_alone() {
        for outer in 0..=255 {
            for inner in 0..=255 {
                let once = decapsulate(outer, inner);
                assert_eq!(once, decapsulate(outer & MASK, inner & MASK));
                if let Some(once) = once {
                    assert_eq!(decapsulate(outer, once), Some(once));
                }
            }
        }
    }

    #[test]
    fn what_was_encapsulated_and_not_touched_comes_out_as_it_went_in() {
        for inner in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(decapsulate(encapsulate(inner), inner), Some(inner));
        }
    }
}
