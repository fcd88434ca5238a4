//! Events of the dataplane in the log.

use overplane::{Control, Event};
use tracing::{debug, error, info, warn};

/// Logs the events that have come up.
pub fn log(control: &Control) {
    while let Some(event) = control.next_event() {
        match event {
            Event::Learned { .. } | Event::Aged { .. } => debug!("{event}"),
            Event::Moved { .. } => info!("{event}"),
            Event::Storm { .. } | Event::Damped { .. } => warn!("{event}"),
            Event::Trouble { .. } | Event::SmallBuffer { .. } | Event::OffloadFailed { .. } => {
                warn!("{event}")
            }
            Event::DeviceLost { .. } => {
                error!("{event}; its port carries nothing until the forwarder is started again");
            }
            _ => info!("{event}"),
        }
    }
}
