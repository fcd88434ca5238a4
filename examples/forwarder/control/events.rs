//! Events for whoever follows them.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use overplane::{Control, Destination, Event, PortId, SegmentId};
use serde_json::{Map, Value, json};

use crate::report;

/// Events that wait for one who follows them; what does not fit is lost, and counted.
const WAITING: usize = 1024;

/// Those who follow the events.
#[derive(Clone, Debug, Default)]
pub struct Listeners(Arc<Mutex<Vec<Listener>>>);

#[derive(Debug)]
struct Listener {
    sender: SyncSender<Value>,
    lost: u64,
    /// Whether somebody follows still: a sender alone does not tell before it sends.
    follows: Weak<()>,
}

/// The events that one who follows them gets, until this is dropped.
#[derive(Debug)]
pub struct Following {
    pub events: Receiver<Value>,
    _follows: Arc<()>,
}

impl Listeners {
    /// Follows events from now on.
    pub fn listen(&self) -> Following {
        let (sender, events) = mpsc::sync_channel(WAITING);
        let following = Following { events, _follows: Arc::new(()) };
        let follows = Arc::downgrade(&following._follows);
        let mut listeners = self.lock();
        listeners.retain(Listener::is_there);
        listeners.push(Listener { sender, lost: 0, follows });
        following
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        !self.lock().iter().any(Listener::is_there)
    }

    /// Tells everybody of an event; who has not read the earlier ones is told later how many were lost.
    pub fn tell(&self, event: &Event, control: &Control) {
        let mut listeners = self.lock();
        if listeners.is_empty() {
            return;
        }
        let told = to_json(event, &|port| device(control, port));
        listeners.retain_mut(|listener| {
            if listener.lost > 0 && listener.sender.try_send(lost(listener.lost)).is_ok() {
                listener.lost = 0;
            }
            match listener.sender.try_send(told.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    listener.lost += 1;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    fn is_there(&self) -> bool {
        self.follows.strong_count() > 0
    }
}

fn lost(events: u64) -> Value {
    json!({ "event": "lost", "time": time(), "lost": events, "text": format!("{events} events lost") })
}

/// Seconds since 1970, with milliseconds.
fn time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}

/// The name of a port's device; of one that is gone, that within the dataplane.
fn device(control: &Control, port: PortId) -> String {
    let known = control.ports().into_iter().find(|known| known.id == port);
    known.map_or_else(|| port.to_string(), |known| known.name)
}

/// An event with its name, its parts and its text.
fn to_json(event: &Event, device: &dyn Fn(PortId) -> String) -> Value {
    let segment = |id: &SegmentId| report::name(*id);
    let place = |of: Destination| match of {
        Destination::Vtep(vtep) => json!({ "vtep": vtep.to_string() }),
        Destination::Port(port) => json!({ "port": device(port) }),
    };
    let (name, parts) = match event {
        Event::Learned { segment: id, mac, at } => {
            ("learned", json!({ "segment": segment(id), "mac": mac.to_string(), "at": place(*at) }))
        }
        Event::Moved { segment: id, mac, from, to } => (
            "moved",
            json!({ "segment": segment(id), "mac": mac.to_string(), "from": from.map(place), "to": place(*to) }),
        ),
        Event::Damped { segment: id, mac, at, elsewhere } => (
            "damped",
            json!({ "segment": segment(id), "mac": mac.to_string(), "at": place(*at), "elsewhere": place(*elsewhere) }),
        ),
        Event::Storm { segment: id, port: of, reason } => (
            "storm",
            json!({ "segment": segment(id), "port": of.map(device), "reason": reason.name() }),
        ),
        Event::Aged { segment: id, mac } => {
            ("aged", json!({ "segment": segment(id), "mac": mac.to_string() }))
        }
        Event::Evicted { segment: id, mac } => {
            ("evicted", json!({ "segment": segment(id), "mac": mac.to_string() }))
        }
        Event::NeighbourConflict { segment: id, address, claimed_by, at } => (
            "neighbour_conflict",
            json!({
                "segment": segment(id),
                "address": address.to_string(),
                "claimed_by": claimed_by.to_string(),
                "at": place(*at),
            }),
        ),
        Event::MdbFull { segment: id, group } => {
            ("mdb_full", json!({ "segment": segment(id), "group": group.to_string() }))
        }
        Event::PathMtu { vtep, mtu } => {
            ("path_mtu", json!({ "vtep": vtep.to_string(), "mtu": mtu }))
        }
        Event::BlackHole { vtep, size, verified } => {
            ("black_hole", json!({ "vtep": vtep.to_string(), "size": size, "verified": verified }))
        }
        Event::MtuChanged { segment: id, mtu } => {
            ("mtu_changed", json!({ "segment": segment(id), "mtu": mtu }))
        }
        Event::LinkDown { name, .. } => ("link_down", json!({ "device": name })),
        Event::LinkUp { name, .. } => ("link_up", json!({ "device": name })),
        Event::DeviceLost { name, .. } => ("device_lost", json!({ "device": name })),
        Event::SmallBuffer { udp_port, wanted, granted } => {
            ("small_buffer", json!({ "udp_port": udp_port, "wanted": wanted, "granted": granted }))
        }
        Event::Trouble { place, reason, error } => {
            ("trouble", json!({ "place": place, "reason": reason.name(), "error": error }))
        }
        Event::OffloadFailed { offload, error } => {
            ("offload_failed", json!({ "offload": offload.to_string(), "error": error }))
        }
        _ => ("other", Value::Object(Map::new())),
    };
    let mut whole = json!({ "event": name, "time": time(), "text": event.to_string() });
    if let (Some(whole), Value::Object(parts)) = (whole.as_object_mut(), parts) {
        whole.extend(parts);
    }
    whole
}

#[cfg(test)]
mod tests {
    use overplane::{Config, Dataplane};

    use super::*;

    #[test]
    fn who_does_not_read_loses_events_and_is_told_how_many() {
        let listeners = Listeners::default();
        let (reads, sleeps) = (listeners.listen(), listeners.listen());
        let event = Event::PathMtu { vtep: ([10, 9, 0, 2], 4789).into(), mtu: Some(1400) };
        let dataplane = Dataplane::start(Config::new([127, 0, 0, 1].into())).unwrap();
        let control = dataplane.control();
        for n in 0..WAITING + 10 {
            listeners.tell(&event, &control);
            let told = reads.events.try_recv().unwrap();
            assert_eq!((&told["event"], &told["mtu"]), (&json!("path_mtu"), &json!(1400)), "{n}");
        }
        assert_eq!(sleeps.events.try_iter().count(), WAITING);
        listeners.tell(&event, &control);
        let told: Vec<Value> = sleeps.events.try_iter().collect();
        assert_eq!((&told[0]["lost"], told.len()), (&json!(10), 2));
        drop((reads, sleeps));
        assert!(listeners.is_empty());
        (0..3).for_each(|_| drop(listeners.listen()));
        assert_eq!(listeners.lock().len(), 1, "those who left make room");
        dataplane.stop().unwrap();
    }
}
