//! Capabilities: all sets of the calling thread.

use caps::{CapSet, Capability, CapsHashSet, runtime, securebits};

use crate::failure::Failure;

/// The capabilities that are kept.
#[derive(Debug)]
pub(super) struct Capabilities {
    kept: CapsHashSet,
    /// Whether they are all there were, and nothing is to be changed.
    all: bool,
}

impl Capabilities {
    pub(super) fn all() -> Self {
        Self { kept: caps::all(), all: true }
    }

    /// What a forwarder that runs needs: devices, their MTUs, and socket buffers above the ceiling; and ports that only some
    /// may use, if it uses them.
    pub(super) fn of_a_forwarder(low_ports: bool) -> Self {
        let ports = low_ports.then_some(Capability::CAP_NET_BIND_SERVICE);
        Self { kept: [Capability::CAP_NET_ADMIN].into_iter().chain(ports).collect(), all: false }
    }

    /// Takes all others out of the bounding set, and has those that are left survive a change of user; to be called
    /// before that. Says whether the bounding set is what it should be.
    pub(super) fn bound(&self) -> Result<bool, Failure> {
        securebits::set_keepcaps(true).map_err(failed)?;
        if self.all {
            return Ok(true);
        }
        let mut bounded = true;
        for capability in runtime::thread_all_supported().difference(&self.kept) {
            if caps::has_cap(None, CapSet::Bounding, *capability).map_err(failed)? {
                // Takes CAP_SETPCAP, which a service manager does not hand down that has bounded the set itself.
                bounded &= caps::drop(None, CapSet::Bounding, *capability).is_ok();
            }
        }
        Ok(bounded)
    }

    /// Gives up all others; says which there are now.
    pub(super) fn apply(self, bounded: bool) -> Result<String, Failure> {
        let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
        let kept: CapsHashSet = permitted.intersection(&self.kept).copied().collect();
        // A change of user has emptied the effective set alone.
        caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
        if !self.all {
            if runtime::ambient_set_supported().is_ok() {
                caps::clear(None, CapSet::Ambient).map_err(failed)?;
            }
            caps::clear(None, CapSet::Inheritable).map_err(failed)?;
            caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
        }
        securebits::set_keepcaps(false).map_err(failed)?;
        let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
        names.sort();
        let names = match names.len() {
            0 => "no capabilities".into(),
            _ if self.all => format!("all {} capabilities kept", names.len()),
            _ => names.join(", "),
        };
        Ok(if bounded { names } else { format!("{names} (bounding set left: no CAP_SETPCAP)") })
    }
}

fn failed(error: caps::errors::CapsError) -> Failure {
    Failure::run(format_args!("giving up capabilities: {error}"))
}
