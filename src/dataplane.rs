//! A running dataplane: built, started, observed, stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Error;
use crate::change::Change;
use crate::config::{Config, DontFragment};
use crate::control::Control;
use crate::io::{Verdict, Version, current_netns, probe, spoiled};
use crate::offload::Offload;
use crate::prober::Prober;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::tables::Tables;
use crate::worker::{Worker, WorkerParts, open_entropy_sockets};

/// A dataplane with its workers.
///
/// Dropping it stops it, as [`Dataplane::stop`] does.
#[derive(Debug)]
pub struct Dataplane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

impl Dataplane {
    /// Builds a dataplane and starts a thread for each worker.
    ///
    /// # Errors
    /// Those of [`Dataplane::build`] and [`Dataplane::run`].
    pub fn start(config: Config) -> Result<Self, Error> {
        let (mut dataplane, workers) = Self::build(config)?;
        dataplane.run(workers)?;
        Ok(dataplane)
    }

    /// Starts a thread for each of the workers that [`Dataplane::build`] returned.
    ///
    /// Segments and devices can be added before. Threads have the credentials, capabilities and filters of the thread
    /// that calls this, so between the two is where a process gives up the privileges that only its set-up needs.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a worker of another dataplane, [`Error::Io`] when a thread cannot be started. The threads
    /// started until then run on.
    pub fn run(&mut self, workers: Vec<Worker>) -> Result<(), Error> {
        if workers.iter().any(|worker| !worker.belongs_to(&self.shared)) {
            return Err(Error::conflict("starting a worker thread", "it is another dataplane's"));
        }
        self.shared.threaded.store(true, Ordering::Relaxed);
        for worker in workers {
            let thread = thread::Builder::new()
                .name(format!("overplane-{}", worker.index()))
                .spawn(move || worker.run())
                .map_err(|error| Error::io("starting a worker thread", error, ""))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Builds a dataplane whose workers the embedder runs: on threads of its own choice and pinning, or later with
    /// [`Dataplane::run`].
    ///
    /// Underlay sockets belong to the network namespace of the calling thread, those that are opened later too. Their
    /// offloads are tried out first: some datagrams between two sockets on the node's own address, which takes a few
    /// milliseconds, or 50 where they do not arrive.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting out of range, [`Error::Io`] when the underlay address cannot be used.
    pub fn build(config: Config) -> Result<(Self, Vec<Worker>), Error> {
        config.check()?;
        let mut tables = Tables::new(config.local, config.workers)?;
        if let Some(second) = config.second_local {
            tables.add_local(second)?;
        }
        tables.set_reserved_bits(config.reserved_bits);
        if config.dont_fragment == DontFragment::Inherit {
            tables.inherit_dont_fragment();
        }
        if config.dont_fragment == DontFragment::Unset {
            tables.allow_fragments();
        }
        tables.set_fdb_capacity(config.fdb_capacity)?;
        let namespace = current_netns();
        let entropy = open_entropy_sockets(&config)?;
        let mut parts = (0..config.workers)
            .map(|index| WorkerParts::open(entropy.clone(), index == 0 && config.follow_host))
            .collect::<Result<Vec<_>, Error>>()?;
        let narrowest = parts
            .first_mut()
            .and_then(|first| config.locals().filter_map(|local| first.interface_mtu(local)).min());
        if let Some(mtu) = narrowest {
            // An MTU that no segment can have is none to go by.
            let _ = tables.apply(Duration::ZERO, [Change::SetUnderlayMtu(mtu)]);
        }
        let wakers = parts.iter().map(WorkerParts::waker).collect::<Result<Vec<_>, Error>>()?;
        let probe = probe(config.local);
        let prober = Prober::new(config.probing)?;
        let shared = Shared::new(config, namespace, tables, wakers, probe.max_train, prober);
        let shared = Arc::new(shared);
        for (offload, why) in Version::running().into_iter().flat_map(spoiled) {
            shared.switches.unavailable(offload, why);
        }
        for (offload, verdict) in [(Offload::UdpGso, probe.gso), (Offload::UdpGro, probe.gro)] {
            if let Verdict::Broken(why) = verdict {
                shared.switches.unavailable(offload, why);
            }
        }
        let workers = parts
            .into_iter()
            .enumerate()
            .map(|(index, parts)| Worker::new(index, parts, shared.clone()))
            .collect();
        Ok((Self { shared, threads: Vec::new() }, workers))
    }

    /// A handle to control this dataplane with.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone())
    }

    /// Statistics; see [`Control::stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.control().stats()
    }

    /// Whether every thread that [`Dataplane::start`] or [`Dataplane::run`] started still runs.
    ///
    /// A thread that ended before [`Dataplane::stop`] has failed; its error is what `stop` returns.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.shared.stopping() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Time since the worker that has been silent for longest was heard of.
    ///
    /// Workers let themselves be heard of once a second, busy or idle, so that more than two seconds mean one that hangs,
    /// or a machine that has no time for it. Counts from [`Dataplane::build`] for workers that have not run yet.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.shared.silence().max().unwrap_or_default()
    }

    /// Stops all workers and waits for the threads that [`Dataplane::start`] or [`Dataplane::run`] started.
    ///
    /// Frames of a batch under way are still forwarded. Devices and sockets are closed with the worker that holds them:
    /// when this returns, or after [`Dataplane::build`] when the worker is dropped. What was attached so late that no
    /// worker took it is closed with the last control handle.
    ///
    /// # Errors
    /// The first error with which a worker ended.
    ///
    /// # Panics
    /// When a worker panicked, with the worker's message.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shared.stop();
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(ended) => result = result.and(ended),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        self.shared.tables.reclaim();
        result
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // Whoever wants the outcome calls `stop`.
            let _ = thread.join();
        }
    }
}
