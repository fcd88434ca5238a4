//! Which offloads are in use: what is wanted, less what does not work here and what has failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::offload::{Offload, OffloadInfo, OffloadState, Offloads};
use crate::shared::lock;

/// The switches of one dataplane. Workers read one byte a turn; everything else is rare.
#[derive(Debug)]
pub(crate) struct Switches {
    /// The bits of what is in use; follows from the ledger, under whose lock it is written.
    active: AtomicU8,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    wanted: Offloads,
    /// What does not work here, with the reason; for good.
    unavailable: Vec<(Offload, String)>,
    /// What failed since it was last switched on, with the first error.
    failed: Vec<(Offload, String)>,
    /// Failures since the start, by offload.
    failures: [u64; Offload::ALL.len()],
}

impl Ledger {
    fn active(&self) -> Offloads {
        let out = self.unavailable.iter().chain(&self.failed).map(|(offload, _)| *offload);
        self.wanted.minus(out.collect()).usable()
    }

    fn state(&self, offload: Offload) -> OffloadState {
        let reason = |list: &[(Offload, String)]| {
            list.iter().find(|(other, _)| *other == offload).map(|(_, why)| why.clone())
        };
        // Off comes first: what nobody wants needs no explanation.
        if !self.wanted.contains(offload) {
            OffloadState::Off
        } else if let Some(why) = reason(&self.unavailable) {
            OffloadState::Unavailable(why)
        } else if let Some(error) = reason(&self.failed) {
            OffloadState::Failed(error)
        } else if self.active().contains(offload) {
            OffloadState::On
        } else {
            OffloadState::Unavailable(format!("needs {}", Offload::Checksum))
        }
    }
}

impl Switches {
    pub(crate) fn new(wanted: Offloads) -> Self {
        let ledger = Ledger {
            wanted,
            unavailable: Vec::new(),
            failed: Vec::new(),
            failures: [0; Offload::ALL.len()],
        };
        Self { active: AtomicU8::new(ledger.active().bits()), ledger: Mutex::new(ledger) }
    }

    /// What is to be made use of now. One relaxed load: whoever is late by a batch does no harm.
    #[inline]
    pub(crate) fn active(&self) -> Offloads {
        Offloads::from_bits(self.active.load(Ordering::Relaxed))
    }

    /// Switches to another set, which is tried even if some of it failed before.
    pub(crate) fn want(&self, wanted: Offloads) {
        self.change(|ledger| {
            ledger.wanted = wanted;
            ledger.failed.clear();
        });
    }

    /// Takes an offload out for good, because it does not work here.
    pub(crate) fn unavailable(&self, offload: Offload, why: impl Into<String>) {
        self.change(|ledger| {
            if ledger.unavailable.iter().all(|(other, _)| *other != offload) {
                ledger.unavailable.push((offload, why.into()));
            }
        });
    }

    /// Takes an offload out until it is switched on again, because it failed; whether it was in use until now.
    pub(crate) fn fail(&self, offload: Offload, error: impl Into<String>) -> bool {
        self.change(|ledger| {
            ledger.failures[offload as usize] += 1;
            // Another worker may have found out, or somebody may have switched it off meanwhile.
            let first = ledger.active().contains(offload);
            if first {
                ledger.failed.push((offload, error.into()));
            }
            first
        })
    }

    /// The state of every offload.
    pub(crate) fn list(&self) -> Vec<OffloadInfo> {
        let ledger = lock(&self.ledger);
        let info = |offload: &Offload| OffloadInfo {
            offload: *offload,
            state: ledger.state(*offload),
            failures: ledger.failures[*offload as usize],
        };
        Offload::ALL.iter().map(info).collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = lock(&self.ledger);
        let result = change(&mut ledger);
        self.active.store(ledger.active().bits(), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(switches: &Switches, offload: Offload) -> OffloadState {
        switches.list()[offload as usize].state.clone()
    }

    #[test]
    fn what_does_not_work_stays_out_whatever_is_wanted() {
        let switches = Switches::new(Offloads::ALL);
        assert_eq!(switches.active(), Offloads::ALL);
        switches.unavailable(Offload::Uso, "old kernel");
        switches.unavailable(Offload::Uso, "another reason");
        assert_eq!(switches.active(), Offloads::ALL.without(Offload::Uso));
        switches.want(Offloads::NONE);
        assert_eq!(switches.active(), Offloads::NONE);
        assert_eq!(state(&switches, Offload::Uso), OffloadState::Off);
        switches.want(Offloads::ALL);
        assert_eq!(switches.active(), Offloads::ALL.without(Offload::Uso));
        let why = OffloadState::Unavailable("old kernel".to_owned());
        assert_eq!(state(&switches, Offload::Uso), why);
    }

    #[test]
    fn what_fails_is_out_until_it_is_switched_on_again() {
        let switches = Switches::new(Offloads::ALL);
        assert!(switches.fail(Offload::UdpGso, "EIO"));
        assert!(!switches.fail(Offload::UdpGso, "another worker"), "one piece of news");
        assert_eq!(state(&switches, Offload::UdpGso), OffloadState::Failed("EIO".to_owned()));
        assert_eq!(switches.active(), Offloads::ALL.without(Offload::UdpGso));
        switches.want(Offloads::ALL);
        assert_eq!(switches.active(), Offloads::ALL);
        assert_eq!(switches.list()[Offload::UdpGso as usize].failures, 2);
        assert!(switches.fail(Offload::UdpGso, "EIO"), "news again");
        switches.want(Offloads::NONE);
        assert!(!switches.fail(Offload::UdpGro, "late"), "nobody wants it any more");
    }

    #[test]
    fn what_needs_checksums_goes_with_them() {
        let switches = Switches::new(Offloads::ALL.without(Offload::Checksum));
        assert!(!switches.active().contains(Offload::Tso));
        assert!(switches.active().contains(Offload::CoalesceTcp));
        let why = OffloadState::Unavailable("needs checksum".to_owned());
        assert_eq!(state(&switches, Offload::Uso), why);
        switches.want(Offloads::ALL);
        assert!(switches.active().contains(Offload::Tso));
    }
}
