//! How paths are probed.

use std::time::Duration;

use crate::Error;

/// The least and the most of each time and number.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const MAX_PROBES: (u8, u8) = (1, 10);
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
const RAISE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
const BASE: (u32, u32) = (552, 9000);

/// When the paths to VTEPs are probed, in the terms of RFC 8899 §5.1; which ones are is for their segments to say
/// ([`MtuOptions::probe`](crate::MtuOptions)).
///
/// With the defaults a path that begins to swallow large packets is found out within 13 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probing {
    /// After how long without an answer a probe is lost, 1 to 60 seconds; default 1 second. `PROBE_TIMER`, for which RFC
    /// 8899 recommends 15 seconds and more across the Internet: an underlay answers in milliseconds.
    pub timeout: Duration,
    /// How many probes of one size have to be lost in a row for the size to be too large, 1 to 10; default 3.
    /// `MAX_PROBES`.
    pub max_probes: u8,
    /// How often it is made sure that packets as large as before still get there, 1 second to 1 hour; default 10 seconds.
    /// `CONFIRMATION_TIMER`. A VTEP that does not answer is asked that often at first, and less and less, down to
    /// [`Probing::raise`].
    pub interval: Duration,
    /// How often it is tried whether a narrow path has become wider, 1 second to 1 day; default 10 minutes.
    /// `PMTU_RAISE_TIMER`.
    pub raise: Duration,
    /// Size of the outer IP packets that a path is expected to take if it takes any, 552 to 9,000 bytes; default 1,200, and
    /// never less than the 1,280 of every path over IPv6. `BASE_PLPMTU`.
    ///
    /// Packets are no larger for the seconds between finding a black hole and finding what gets there. IPv6 inside VXLAN
    /// needs 1,330 bytes over IPv4 and 1,350 over IPv6, so where all paths take that much it is the better value.
    pub base: u32,
}

impl Probing {
    /// # Errors
    /// [`Error::Invalid`] for values out of their range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let time = |what, value: Duration, (least, most), allowed| {
            let fits = (least..=most).contains(&value);
            fits.then_some(()).ok_or_else(|| Error::invalid(what, format!("{value:?}"), allowed))
        };
        time("timeout of path probes", self.timeout, TIMEOUT, "1 to 60 seconds")?;
        time("interval of path probes", self.interval, INTERVAL, "1 second to 1 hour")?;
        time("time until paths are raised", self.raise, RAISE, "1 second to 1 day")?;
        if !(MAX_PROBES.0..=MAX_PROBES.1).contains(&self.max_probes) {
            let value = self.max_probes.to_string();
            return Err(Error::invalid("number of path probes", value, "1 to 10"));
        }
        if !(BASE.0..=BASE.1).contains(&self.base) {
            let value = self.base.to_string();
            return Err(Error::invalid("base size of path probes", value, "552 to 9000 bytes"));
        }
        Ok(())
    }
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            max_probes: 3,
            interval: Duration::from_secs(10),
            raise: Duration::from_secs(600),
            base: 1200,
        }
    }
}
