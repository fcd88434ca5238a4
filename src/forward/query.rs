//! Questions of this node to the members of multicast groups, in segments where it is the querier.

use std::net::IpAddr;
use std::time::Duration;

use crate::batch::Batch;
use crate::multicast::Mdb;
use crate::output::Output;
use crate::segment::Traits;
use crate::tables::{Bridge, SegmentEntry, Tables};
use crate::wire::VnetHeader;
use crate::wire::multicast::{Asker, Question};

use super::targets::Audience;
use super::{Context, Forwarder};

/// The segment, and this node in it, that asks.
type From<'a> = (&'a SegmentEntry, &'a Bridge, Asker);

impl Forwarder {
    /// Asks for members of multicast groups in the segments where this node is the querier and it is time: the questions are put
    /// into an empty batch, and what is to be done with them into `output`. For one worker of all, once a second.
    ///
    /// # Panics
    /// When the tables were made for fewer workers than this one's number.
    pub fn query_groups(
        &mut self,
        tables: &Tables,
        now: Duration,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let context = self.context(tables, now);
        for segment in tables.segments.values() {
            let Some(bridge) = segment.bridge() else { continue };
            if let Some(mdb) = bridge.mdb.as_deref().filter(|mdb| mdb.options.querier.is_some()) {
                self.query_segment(&context, (segment, bridge, mdb), batch, output);
            }
        }
    }

    fn query_segment(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, mdb): (&SegmentEntry, &Bridge, &Mdb),
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let second = context.second;
        for ipv6 in [false, true] {
            // What finds no room is asked the next time.
            if let Some(asker) = mdb.querier(ipv6, second).filter(|_| batch.free() > 0)
                && mdb.is_due(asker, second)
            {
                mdb.asked(asker.address, u32::from(asker.response) * 1000, second);
                self.ask(context, (segment, bridge, asker), None, batch, output);
            }
        }
        for group in mdb.questions(batch.free()) {
            if let Some(asker) = mdb.querier(group.is_ipv6(), second) {
                self.ask(context, (segment, bridge, asker), Some(group), batch, output);
            }
        }
    }

    /// Asks everybody about all groups, or about one: also those who have not left it, for all nodes that hear the question give
    /// up whoever does not answer it.
    fn ask(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, asker): From<'_>,
        group: Option<IpAddr>,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let Some(question) = Question::new(asker, group) else { return };
        let (index, vnet) = (batch.len(), VnetHeader::default());
        if !batch.push(question.bytes(), vnet) {
            return;
        }
        let audience = Audience {
            tables: context.tables,
            ports: &segment.ports,
            except: None,
            without: Traits::default(),
            vid: 0,
            vteps: &bridge.flood,
        };
        let mut emitter = self.emitter(context, segment, output);
        // There may be nobody to be asked, or a segment too narrow for the question.
        let _ = emitter.flood(batch, index, vnet, None, &audience);
        std::mem::take(&mut self.tally).flush_generated(context, segment);
    }
}
