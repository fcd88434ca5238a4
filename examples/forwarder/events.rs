//! Events of the dataplane: in the log, and what they call for.

use overplane::{Control, Event, SegmentId};
use overplane_lab::Namespace;
use tracing::{debug, error, info, warn};

use crate::control::Listeners;

/// Logs the events that have come up, tells them to those who listen, and gives devices the MTU of their segment when that
/// changes.
pub fn follow(host: &Namespace, control: &Control, listeners: &Listeners) {
    while let Some(event) = control.next_event() {
        listeners.tell(&event, control);
        match event {
            Event::Learned { .. } | Event::Aged { .. } => debug!("{event}"),
            Event::Moved { .. } => info!("{event}"),
            Event::Storm { .. } | Event::Damped { .. } | Event::BlackHole { .. } => {
                warn!("{event}")
            }
            Event::Trouble { .. } | Event::SmallBuffer { .. } | Event::OffloadFailed { .. } => {
                warn!("{event}")
            }
            Event::DeviceLost { .. } => {
                error!("{event}; its port carries nothing until the forwarder is started again");
            }
            Event::MtuChanged { segment, mtu } => {
                info!("{event}");
                resize(host, control, segment, mtu);
            }
            _ => info!("{event}"),
        }
    }
}

fn resize(host: &Namespace, control: &Control, segment: SegmentId, mtu: u32) {
    for port in control.ports().iter().filter(|port| port.segment == segment) {
        if let Err(error) = host.set_mtu(&port.name, mtu) {
            warn!("{error}");
        }
    }
}
