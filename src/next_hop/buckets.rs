//! Resilient hashing: which member of a group has which bucket, with as few changes as can be.
//!
//! As in Linux's resilient next-hop groups (kernel `Documentation/networking/nexthop-group-resilient.rst`), but that a
//! change takes effect at once: there is no idle timer. The number of buckets is a power of two that only grows; when it
//! doubles, both halves of a bucket stay with its member, so that growing moves nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::table::Share;

/// Fewest buckets of a group (the default of `ip nexthop`).
const MIN_BUCKETS: usize = 128;

/// Buckets for each unit of weight, for a share to be exact to an eighth, unless there are too many.
const PER_WEIGHT: usize = 8;

/// Most buckets that are there for exactness alone; more only so that each member has one.
const ENOUGH_BUCKETS: usize = 4096;

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Number of buckets for a group of these members.
fn count(members: &[Share]) -> usize {
    let unit = members.iter().fold(0, |unit, member| gcd(unit, usize::from(member.weight)));
    let total = total(members) / unit.max(1);
    (total * PER_WEIGHT).clamp(MIN_BUCKETS, ENOUGH_BUCKETS).max(total).next_power_of_two()
}

fn total(members: &[Share]) -> usize {
    members.iter().map(|member| usize::from(member.weight)).sum()
}

/// Whether the members are some of those before, each with at least its part of the flows.
fn only_fewer(before: &[Share], members: &[Share]) -> bool {
    let (old_total, new_total) = (total(before), total(members));
    members.iter().all(|member| {
        before.iter().find(|old| old.at == member.at).is_some_and(|old| {
            usize::from(member.weight) * old_total >= usize::from(old.weight) * new_total
        })
    })
}

/// The buckets for `members`, given those for the members `before`; locations as words.
///
/// Each member gets its share, rounded up or down, and the fewest buckets change hands for that. If members are only
/// taken away, no bucket of another one changes hands, even if the shares come out a little less even for it.
pub(super) fn assign(buckets: &[u32], before: &[Share], members: &[Share]) -> Box<[u32]> {
    if members.is_empty() {
        return Box::default();
    }
    let (size, total) = (count(members).max(buckets.len()), total(members));
    let places: HashMap<u32, usize> =
        members.iter().enumerate().map(|(place, member)| (member.at.to_word(), place)).collect();
    let owner = |bucket: usize| {
        let word = buckets.get(bucket & buckets.len().wrapping_sub(1))?;
        places.get(word).copied()
    };
    // Shares and what is missing of them are counted in parts, `total` to the bucket, to be whole numbers.
    let share = |place: usize| size * usize::from(members[place].weight);
    let mut held = vec![0; members.len()];
    (0..size).filter_map(owner).for_each(|place| held[place] += 1);
    for (place, held) in held.iter_mut().enumerate() {
        *held = share(place).div_ceil(total).min(*held);
    }
    let missing = |held: &[usize], place: usize| share(place) as i64 - (held[place] * total) as i64;
    // What is free goes where most is missing.
    let free = size - held.iter().sum::<usize>();
    let mut poorest: BinaryHeap<(i64, Reverse<usize>)> =
        (0..members.len()).map(|place| (missing(&held, place), Reverse(place))).collect();
    for _ in 0..free {
        if let Some((_, Reverse(place))) = poorest.pop() {
            held[place] += 1;
            poorest.push((missing(&held, place), Reverse(place)));
        }
    }
    // If that was not enough, those who have more than their share give.
    if !only_fewer(before, members) {
        level(&mut held, total as i64, missing);
    }
    let mut keeps = held;
    let mut assigned: Vec<Option<usize>> =
        (0..size).map(|bucket| owner(bucket).filter(|place| take(&mut keeps[*place]))).collect();
    let mut place = 0;
    for bucket in assigned.iter_mut().filter(|bucket| bucket.is_none()) {
        while !take(&mut keeps[place]) {
            place += 1;
        }
        *bucket = Some(place);
    }
    assigned.into_iter().flatten().map(|place| members[place].at.to_word()).collect()
}

/// Moves buckets from those who hold most above their share to those who miss one or more.
fn level(held: &mut [usize], bucket: i64, missing: impl Fn(&[usize], usize) -> i64) {
    loop {
        let all = || (0..held.len()).map(|place| (missing(held, place), place));
        let (Some((most, poor)), Some((least, rich))) =
            (all().max_by_key(|(missing, place)| (*missing, Reverse(*place))), all().min())
        else {
            return;
        };
        if most < bucket || least >= 0 {
            return;
        }
        held[rich] -= 1;
        held[poor] += 1;
    }
}

/// Takes one off a count, if it is not zero.
fn take(count: &mut usize) -> bool {
    let some = *count > 0;
    *count -= usize::from(some);
    some
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::{Location, VtepId};

    fn shares(weights: &[(u32, u16)]) -> Vec<Share> {
        let share = |(n, weight)| Share { at: Location::Vtep(VtepId(n)), weight };
        weights.iter().copied().map(share).collect()
    }

    fn held(buckets: &[u32], member: &Share) -> usize {
        buckets.iter().filter(|word| **word == member.at.to_word()).count()
    }

    /// How far a member is from its share, in buckets.
    fn error(buckets: &[u32], members: &[Share], member: &Share) -> f64 {
        let share = buckets.len() as f64 * f64::from(member.weight) / total(members) as f64;
        (held(buckets, member) as f64 - share).abs()
    }

    /// The buckets as they are after growing, without any other change.
    fn grown(buckets: &[u32], size: usize) -> Vec<u32> {
        buckets.iter().copied().cycle().take(if buckets.is_empty() { 0 } else { size }).collect()
    }

    fn moved(before: &[u32], after: &[u32]) -> usize {
        before.iter().zip(after).filter(|(a, b)| a != b).count()
    }

    fn any_members() -> impl Strategy<Value = Vec<Share>> {
        let weight = prop_oneof![4 => Just(1_u16), 4 => 1_u16..10, 1 => 1_u16..=256];
        prop::collection::btree_map(0_u32..20, weight, 1..20)
            .prop_map(|members| shares(&members.into_iter().collect::<Vec<_>>()))
    }

    #[test]
    fn the_number_of_buckets_follows_the_weights() {
        for (weights, buckets) in [
            (vec![(1, 1)], 128),
            (vec![(1, 256), (2, 256)], 128),
            (vec![(1, 10), (2, 20), (3, 30)], 128),
            ((0..17).map(|n| (n, 1)).collect(), 256),
            (vec![(1, 256), (2, 255)], 4096),
            ((0..256).map(|n| (n, if n == 0 { 1 } else { 256 })).collect(), 65_536),
        ] {
            let members = shares(&weights);
            let assigned = assign(&[], &[], &members);
            assert_eq!(assigned.len(), buckets, "{weights:?}");
            assert!(members.iter().all(|member| held(&assigned, member) > 0), "{weights:?}");
        }
    }

    proptest! {
        /// Shares are exact to less than a bucket, and no fewer buckets could have changed hands.
        #[test]
        fn each_change_moves_the_fewest_buckets(steps in prop::collection::vec(any_members(), 1..8)) {
            let (mut buckets, mut before): (Box<[u32]>, _) = (Box::default(), Vec::new());
            for members in steps {
                let after = assign(&buckets, &before, &members);
                prop_assert_eq!(&after, &assign(&buckets, &before, &members), "deterministic");
                let old = grown(&buckets, after.len());
                let slack = if only_fewer(&before, &members) { 2.0 } else { 1.0 };
                for member in &members {
                    prop_assert!(error(&after, &members, member) < slack, "{:?}", member);
                    prop_assert!(held(&after, member) > 0);
                }
                // What must move: what anybody holds above the share rounded up, what anybody lacks of it rounded down.
                let sum = total(&members);
                let parts = |member: &Share| after.len() * usize::from(member.weight);
                let kept: usize = members.iter().map(|m| held(&old, m).min(parts(m).div_ceil(sum))).sum();
                let lack: usize = members.iter().map(|m| (parts(m) / sum).saturating_sub(held(&old, m))).sum();
                if !old.is_empty() && slack == 1.0 {
                    prop_assert_eq!(moved(&old, &after), (old.len() - kept).max(lack));
                }
                (buckets, before) = (after, members);
            }
        }

        /// Taking members away moves the flows of those alone.
        #[test]
        fn removing_moves_only_what_was_theirs(
            first in any_members(), second in any_members(), gone in prop::collection::vec(any::<bool>(), 20),
        ) {
            let buckets = assign(&[], &[], &first);
            let buckets = assign(&buckets, &first, &second);
            let mut left = second.clone();
            let mut place = 0;
            left.retain(|_| { place += 1; place == 1 || !gone[place - 1] });
            let after = assign(&buckets, &second, &left);
            prop_assert_eq!(after.len() % buckets.len(), 0);
            for (old, new) in grown(&buckets, after.len()).iter().zip(&after) {
                prop_assert!(old == new || left.iter().all(|member| member.at.to_word() != *old));
            }
        }
    }
}
