//! Nested prefixes as what they come to: runs of addresses that have one next hop.

use super::NextHopId;
use super::address::Address;
use super::map::Key;

/// A next hop as tables store it: 0 for none, else its number plus one.
pub(super) type Code = u32;

/// Runs in order: the first address of each with its value. A run ends where the next begins.
pub(super) type Runs<A> = Vec<(A, Code)>;

/// Cuts the addresses from `first` on into runs, with `outside` where no route is.
///
/// `routes` are in order of prefix and begin at `first` or later.
pub(super) fn runs<A: Address>(
    first: A,
    outside: Code,
    routes: impl Iterator<Item = (Key<A>, NextHopId)>,
    runs: &mut Runs<A>,
) {
    runs.clear();
    runs.push((first, outside));
    // The prefixes around the current address, outermost first: last address, value.
    let mut around: Vec<(A, Code)> = Vec::new();
    for ((address, len), next_hop) in routes {
        close(&mut around, Some(address), outside, runs);
        push(runs, address, next_hop.code());
        around.push((address.last(len), next_hop.code()));
    }
    close(&mut around, None, outside, runs);
}

/// Ends the prefixes that end before `address`.
fn close<A: Address>(
    around: &mut Vec<(A, Code)>,
    address: Option<A>,
    outside: Code,
    runs: &mut Runs<A>,
) {
    while let Some((last, _)) = around.pop_if(|(last, _)| address.is_none_or(|next| *last < next)) {
        if let Some(next) = last.next() {
            push(runs, next, around.last().map_or(outside, |(_, value)| *value));
        }
    }
}

/// From `address` on, `value`.
fn push<A: Address>(runs: &mut Runs<A>, address: A, value: Code) {
    runs.pop_if(|(start, _)| *start == address);
    if runs.last().is_none_or(|(_, before)| *before != value) {
        runs.push((address, value));
    }
}
