//! What is captured from the start.

use std::path::PathBuf;

use clap::Args;
use overplane::{CaptureFilter, CaptureOptions};

use super::read::number;
use crate::capture::CapturePlan;
use crate::values;

/// What is captured from the start.
#[derive(Debug, Args)]
#[command(next_help_heading = "Capture")]
pub struct Capture {
    /// File that every frame is written to with what became of it, as pcapng; overwritten.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Only frames for which all of this holds: words joined by commas, of mac=, net=, vni=, udp_port=, port=, vtep= and
    /// fate= (a fate, a drop reason, or dropped).
    #[arg(long, value_name = "FILTER", requires = "capture")]
    capture_filter: Option<CaptureFilter>,
    /// Only so many bytes of each frame, 1 to 65600 [default: 65600].
    #[arg(long, value_name = "BYTES", requires = "capture", value_parser = number::<u32>(values::SNAP))]
    capture_snap: Option<u32>,
}

impl Capture {
    pub fn plan(self) -> Option<CapturePlan> {
        let mut options = CaptureOptions::default();
        options.snap = self.capture_snap.map_or(options.snap, |snap| snap as usize);
        let filter = self.capture_filter.unwrap_or_default();
        self.capture.map(|file| CapturePlan { file, filter, options })
    }
}
