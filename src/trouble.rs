//! Failed system calls of the data path: each cause is reported once.

use std::io;
use std::time::Duration;

use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::segment::{PortId, VtepId};

/// Causes remembered at one time; further ones are not reported until one of these was quiet.
const MAX_CAUSES: usize = 64;

/// A cause that was quiet for this long is news again.
const QUIET: Duration = Duration::from_secs(1);

/// Where something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Port(PortId),
    Vtep(VtepId),
    UdpPort(u16),
}

/// Causes of trouble that came up lately.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    /// Place, reason, and when it last came up.
    causes: Vec<(Place, DropReason, Duration)>,
}

impl Troubles {
    /// The event to report, if this cause is news; only then is `name` asked how to call the place.
    pub(crate) fn report(
        &mut self,
        place: Place,
        reason: DropReason,
        error: &io::Error,
        now: Duration,
        name: impl FnOnce() -> String,
    ) -> Option<Event> {
        self.causes.retain(|(_, _, last)| now.saturating_sub(*last) < QUIET);
        if let Some(cause) =
            self.causes.iter_mut().find(|(at, why, _)| *at == place && *why == reason)
        {
            cause.2 = now;
            return None;
        }
        if self.causes.len() == MAX_CAUSES {
            return None;
        }
        self.causes.push((place, reason, now));
        Some(Event::Trouble { place: name(), reason, error: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_reported_once_until_it_was_quiet() {
        let mut troubles = Troubles::default();
        let error = io::Error::from_raw_os_error(libc::ENOBUFS);
        let mut report = |udp_port, millis| {
            let (place, now) = (Place::UdpPort(udp_port), Duration::from_millis(millis));
            troubles.report(place, DropReason::UnderlayFull, &error, now, String::new).is_some()
        };
        assert!(report(1, 0));
        assert!(!report(1, 900));
        assert!(report(2, 900), "another place is another cause");
        assert!(!report(1, 1800), "it was not quiet for a second");
        assert!(report(1, 2800));
    }

    #[test]
    fn many_causes_at_once_are_not_all_reported() {
        let mut troubles = Troubles::default();
        let error = io::Error::from_raw_os_error(libc::ENOBUFS);
        let reported = (0..1000).filter(|n| {
            let place = Place::UdpPort(*n);
            troubles
                .report(place, DropReason::UnderlayFull, &error, Duration::ZERO, String::new)
                .is_some()
        });
        assert_eq!(reported.count(), MAX_CAUSES);
    }
}
