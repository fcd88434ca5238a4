//! Bringing a running forwarder in step with its file.

mod diff;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use overplane::{Change, Control, Error, PortInfo};
use tracing::info;

use crate::config;
use crate::entry::Names;
use crate::failure::Failure;
use crate::overlay::Site;
use crate::plan::Plan;
use diff::Diff;
pub use diff::Step;

/// What a forwarder runs that has a file.
#[derive(Debug)]
pub struct Loaded {
    file: PathBuf,
    control: Control,
    site: Arc<Site>,
    running: Mutex<Running>,
}

/// The file as it was taken over last.
#[derive(Debug)]
struct Running {
    plan: Plan,
    names: Names,
}

impl Loaded {
    /// A forwarder that runs the plan of a file.
    pub fn new(file: &Path, plan: Plan, names: Names, control: Control, site: Arc<Site>) -> Self {
        let (file, running) = (file.to_owned(), Mutex::new(Running { plan, names }));
        Self { file, control, site, running }
    }

    /// Reads the file again and takes over what has changed in it since it was taken over last, or only says what that is.
    ///
    /// What cannot be changed while it forwards is a failure, and nothing is changed then. What others have changed
    /// meanwhile stays, as far as the file says the same of it as before.
    pub fn reload(&self, dry_run: bool) -> Result<Vec<Step>, Failure> {
        // One after the other, whoever asks.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = config::load(&self.file)?;
        let diff = Diff::between(&running.plan, &plan).map_err(Failure::Refused)?;
        let steps = diff.steps();
        if !dry_run && !steps.is_empty() {
            let mut names = running.names.clone();
            self.carry_out(&diff, &mut names)?;
            *running = Running { plan, names };
            info!("{}: {} changes taken over", self.file.display(), steps.len());
        }
        Ok(steps)
    }

    /// What goes first makes room for what comes. Entries of all segments change at once: frames see those before or those
    /// after.
    fn carry_out(&self, diff: &Diff<'_>, names: &mut Names) -> Result<(), Failure> {
        let Self { control, site, .. } = self;
        let gone = |error: Error| match error {
            // Somebody was faster.
            Error::NotFound { .. } => Ok(()),
            error => Err(error),
        };
        for (_, port) in &diff.ports_removed {
            let known = control.ports().into_iter().find(|known| known.name == port.device);
            known.map_or(Ok(()), |known| control.detach(known.id)).or_else(gone)?;
        }
        for planned in &diff.segments_removed {
            control.remove_segment(planned.segment.id()).or_else(gone)?;
        }
        for planned in &diff.segments_added {
            // From a time before that got half way.
            control.remove_segment(planned.segment.id()).or_else(gone)?;
            site.add_planned(control, (*planned).clone(), names)?;
        }
        for (segment, port) in &diff.ports_added {
            let known = control.segments().into_iter().find(|info| info.id == *segment);
            let info = known.ok_or_else(|| {
                Failure::run(format_args!("{segment} is gone: add it again, and {}", port.device))
            })?;
            let is_it = |known: &PortInfo| known.segment == *segment && known.name == port.device;
            match control.ports().iter().find(|known| is_it(known)) {
                Some(known) => control.set_port(known.id, port.options.clone())?,
                None => site.add_port(control, &info, port)?,
            }
        }
        let ports = control.ports();
        for (before, after) in &diff.ports_changed {
            let known = ports.iter().find(|known| known.name == after.device);
            let known = known.ok_or_else(|| {
                Failure::run(format_args!("port {} is gone: add it again", after.device))
            })?;
            if before.options != after.options {
                control.set_port(known.id, after.options.clone())?;
            }
            site.readdress(before, after)?;
        }
        names.set_ports(ports.into_iter().map(|port| (port.name, port.id)));
        let mut removals: Vec<Change> = Vec::new();
        for (segment, entry) in &diff.entries_removed {
            removals.extend(entry.remove(*segment, names));
        }
        let mut additions: Vec<Change> = Vec::new();
        for (segment, entry) in &diff.entries_added {
            additions.extend(entry.add(*segment, names));
        }
        match control.apply(removals.iter().chain(&additions).cloned()) {
            // Somebody has removed one of them already: one by one then.
            Err(Error::NotFound { .. }) if !removals.is_empty() => {
                removals
                    .into_iter()
                    .try_for_each(|change| control.apply([change]).or_else(gone))?;
                Ok(control.apply(additions)?)
            }
            result => Ok(result?),
        }
    }
}
