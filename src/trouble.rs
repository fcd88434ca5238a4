//! Failed system calls of the data path: each cause is reported once.

use std::io;
use std::time::Duration;

use crate::drop_reason::DropReason;
use crate::event::Event;

/// Causes remembered at one time; further ones are reported each time they come up.
const MAX_CAUSES: usize = 64;

/// A cause that was quiet for this long is news again.
const QUIET: Duration = Duration::from_secs(1);

/// Causes of trouble that were reported lately.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    causes: Vec<(String, DropReason, Duration)>,
}

impl Troubles {
    /// The event to report, if this cause is news.
    pub(crate) fn report(
        &mut self,
        place: &str,
        reason: DropReason,
        error: &io::Error,
        now: Duration,
    ) -> Option<Event> {
        self.causes.retain(|(_, _, last)| now.saturating_sub(*last) < QUIET);
        if let Some(cause) =
            self.causes.iter_mut().find(|(at, why, _)| at == place && *why == reason)
        {
            cause.2 = now;
            return None;
        }
        if self.causes.len() < MAX_CAUSES {
            self.causes.push((place.to_owned(), reason, now));
        }
        Some(Event::Trouble { place: place.to_owned(), reason, error: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_reported_once_until_it_was_quiet() {
        let mut troubles = Troubles::default();
        let error = io::Error::from_raw_os_error(libc::ENOBUFS);
        let mut report = |place: &str, millis| {
            troubles
                .report(place, DropReason::UnderlayFull, &error, Duration::from_millis(millis))
                .is_some()
        };
        assert!(report("a", 0));
        assert!(!report("a", 900));
        assert!(report("b", 900), "another place is another cause");
        assert!(!report("a", 1800), "it was not quiet for a second");
        assert!(report("a", 2800));
    }
}
