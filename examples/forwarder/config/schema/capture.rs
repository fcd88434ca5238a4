//! Reading of what is captured from the start.

use overplane::{CaptureFilter, CaptureOptions, ParseFilterError};

use crate::capture::CapturePlan;
use crate::config::reader::{Problems, Section};
use crate::values;

/// Reads `capture`.
pub fn read(root: &Section<'_>, problems: &mut Problems) -> Option<CapturePlan> {
    let section = root.get("capture")?.section(problems)?;
    section.only(&["file", "filter", "snap"], &[], "", problems);
    let mut filter = CaptureFilter::default();
    if let Some(item) = section.get("filter") {
        match item.as_text().map(str::parse) {
            Some(Ok(given)) => filter = given,
            Some(Err(error)) => {
                let error: ParseFilterError = error;
                item.problem(error, problems);
            }
            None => item.refuse("words such as \"net=10.8.0.0/24,fate=dropped\"", problems),
        }
    }
    let mut options = CaptureOptions::default();
    if let Some(item) = section.get("snap") {
        let snap = item.integer(values::SNAP, problems);
        options.snap = snap.map_or(options.snap, |snap| snap as usize);
    }
    if let Some(item) = section.get("file") {
        let file = item.text(values::FILE, values::file, problems)?;
        return Some(CapturePlan { file, filter, options });
    }
    if (filter, options) != Default::default() {
        section.problem("of no use without the key file", problems);
    }
    None
}
