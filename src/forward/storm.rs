//! Limits of what is flooded: rates, and addresses that move too fast.

use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::output::Output;
use crate::segment::{Exceeded, PortId, Storm, Traits};
use crate::tables::{Bridge, PortEntry, SegmentEntry};
use crate::wire::VnetHeader;
use crate::wire::eth::MacNumber;

use super::Context;

/// Lets a frame of `len` bytes from `mac` be flooded, or not: unless the address is held because frames loop, and by the
/// limits of the port it came from and of the segment.
#[inline(always)]
pub(super) fn admit(
    context: &Context<'_>,
    (segment, bridge): (&SegmentEntry, &Bridge),
    port: Option<&PortEntry>,
    frame: (MacNumber, Traits, usize, VnetHeader),
    output: &mut Output,
) -> Result<(), DropReason> {
    let limited = bridge.storm.is_some() || port.is_some_and(|port| port.storm.is_some());
    // Mostly neither: then nothing need be known of the frame.
    if limited || context.tables.damper.holds_any(context.second) {
        return admit_limited(context, (segment, bridge), port, frame, output);
    }
    Ok(())
}

#[inline(never)]
fn admit_limited(
    context: &Context<'_>,
    (segment, bridge): (&SegmentEntry, &Bridge),
    port: Option<&PortEntry>,
    (mac, class, len, vnet): (MacNumber, Traits, usize, VnetHeader),
    output: &mut Output,
) -> Result<(), DropReason> {
    if let Some(pace) = bridge.pace
        && context.tables.damper.holds(segment.id, mac, pace, context.second)
    {
        return Err(DropReason::Damped);
    }
    let of_port = port.and_then(|port| Some((port.id, port.storm.as_deref()?)));
    // A super-frame is about as many frames as it has chunks; headers do not matter.
    let frames = match vnet.is_gso() {
        true => len.div_ceil(usize::from(vnet.gso_size).max(1)) as u32,
        false => 1,
    };
    let limits = of_port.map(|(port, storm)| (Some(port), storm)).into_iter();
    for (port, storm) in limits.chain(bridge.storm.as_deref().map(|storm| (None, storm))) {
        within(context, segment, (port, storm), (class, frames), output)?;
    }
    Ok(())
}

fn within(
    context: &Context<'_>,
    segment: &SegmentEntry,
    (port, storm): (Option<PortId>, &Storm),
    (class, frames): (Traits, u32),
    output: &mut Output,
) -> Result<(), DropReason> {
    storm.admit(class, frames, context.now).map_err(|Exceeded { reason, onset }| {
        if onset {
            output.event(Event::Storm { segment: segment.id, port, reason });
        }
        reason
    })
}
