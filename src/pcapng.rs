//! Writing captured frames as pcapng, which Wireshark, tshark and tcpdump read.
//!
//! The format is that of draft-ietf-opsawg-pcapng-03; block and option numbers are from its sections 4 and 3.5.
//!
//! Each place where frames are captured, a port or a VTEP within a segment, is an interface of its own. Each frame says in
//! which direction it passed, which worker forwarded it (as its queue), and in a comment what became of it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use crate::capture::{CapturePoint, Captured, Direction, Fate, Layer};
use crate::segment::SegmentId;
use crate::wire::Vni;

/// Section Header Block (§4.1).
const SECTION: u32 = 0x0a0d_0d0a;
/// Interface Description Block (§4.2).
const INTERFACE: u32 = 1;
/// Interface Statistics Block (§4.6).
const STATISTICS: u32 = 5;
/// Enhanced Packet Block (§4.3).
const PACKET: u32 = 6;

/// Tells the byte order of a section, which is little endian here on every machine (§4.1).
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Major and minor version of the format (§4.1).
const VERSION: [u16; 2] = [1, 0];
/// The length of a section that is not known (§4.1).
const UNKNOWN_LENGTH: u64 = u64::MAX;

/// End of options (§3.5).
const OPT_END: u16 = 0;
/// A comment (§3.5).
const OPT_COMMENT: u16 = 1;
/// The program that writes the section (§4.1).
const SHB_USERAPPL: u16 = 4;
/// The interface's name and description (§4.2).
const IF_NAME: u16 = 2;
/// See [`IF_NAME`].
const IF_DESCRIPTION: u16 = 3;
/// Resolution of the interface's times: the negative power of ten (§4.2).
const IF_TSRESOL: u16 = 9;
/// Nanoseconds.
const NANOSECONDS: u8 = 9;
/// Flags of a packet; its lowest two bits are the direction, 1 in and 2 out (§4.3.1).
const EPB_FLAGS: u16 = 2;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Packets lost between this one and the one before it (§4.3).
const EPB_DROPCOUNT: u16 = 4;
/// The queue of the interface (§4.3).
const EPB_QUEUE: u16 = 6;
/// Packets that the interface dropped for want of room (§4.6).
const ISB_IFDROP: u16 = 5;
/// Packets that were handed to the user (§4.6).
const ISB_USRDELIV: u16 = 8;

// Link types (https://www.tcpdump.org/linktypes.html).

/// Ethernet.
const LINKTYPE_ETHERNET: u16 = 1;
/// IPv4 or IPv6, by the first four bits.
const LINKTYPE_RAW: u16 = 101;
/// What Wireshark takes apart as whatever the tags in front of it name.
const LINKTYPE_WIRESHARK_UPPER_PDU: u16 = 252;

/// Tags that name the dissector of VXLAN, padded to 32 bits, and end the tags (Wireshark `epan/exported_pdu.h`:
/// `EXP_PDU_TAG_DISSECTOR_NAME`, `EXP_PDU_TAG_END_OF_OPT`).
const AS_VXLAN: [u8; 16] = [0, 12, 0, 8, b'v', b'x', b'l', b'a', b'n', 0, 0, 0, 0, 0, 0, 0];

/// Interfaces with names of their own at most; what is captured elsewhere shares one for each link type.
const MAX_INTERFACES: usize = 4096;

/// Longest text of one option, in bytes; all texts here are much shorter but for names, which others choose.
const MAX_TEXT: usize = 4096;

/// What tells interfaces apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    link: u16,
    /// `None` for all those that have no interface of their own.
    at: Option<(CapturePoint, Option<SegmentId>, Option<Vni>)>,
}

/// Writes one section of a pcapng file.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    epoch: Duration,
    interfaces: HashMap<Place, u32>,
    /// Frames written, by interface.
    written: Vec<u64>,
    lost: u64,
    /// Time of the last frame, in nanoseconds since 1970.
    last: u64,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section. `epoch` is the time since 1970 (UTC) at which [`Captured::time`] was zero: that of
    #[cfg_attr(
        all(feature = "io", target_os = "linux"),
        doc = "[`Capture::epoch`](crate::Capture::epoch)."
    )]
    #[cfg_attr(not(all(feature = "io", target_os = "linux")), doc = "`Capture::epoch`.")]
    /// `program` is the name of the program that captures.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, epoch: Duration, program: &str) -> io::Result<Self> {
        let mut writer = Self {
            out,
            epoch,
            interfaces: HashMap::new(),
            written: Vec::new(),
            lost: 0,
            last: 0,
            block: Vec::new(),
        };
        writer.begin(SECTION);
        writer.put(&BYTE_ORDER.to_le_bytes());
        VERSION.iter().for_each(|part| writer.block.extend(part.to_le_bytes()));
        writer.put(&UNKNOWN_LENGTH.to_le_bytes());
        writer.text(SHB_USERAPPL, program);
        writer.end()?;
        Ok(writer)
    }

    /// Writes a frame; `lost` is how many frames the capture has lost by now.
    ///
    /// # Errors
    /// Those of the output. What it has taken of the frame is cut, and nothing should be written after it.
    pub fn write(&mut self, frame: &Captured, lost: u64) -> io::Result<()> {
        let interface = self.interface(frame)?;
        let nanoseconds = (self.epoch + frame.time).as_nanos() as u64;
        let prefix: &[u8] = if frame.layer == Layer::Datagram { &AS_VXLAN } else { &[] };
        let captured = (prefix.len() + frame.bytes.len()) as u32;
        let direction = match frame.direction() {
            Direction::Received => INBOUND,
            Direction::Sent => OUTBOUND,
        };
        self.begin(PACKET);
        self.put(&interface.to_le_bytes());
        self.put(&((nanoseconds >> 32) as u32).to_le_bytes());
        self.put(&(nanoseconds as u32).to_le_bytes());
        self.put(&captured.to_le_bytes());
        self.put(&((prefix.len() + frame.len) as u32).to_le_bytes());
        self.put(prefix);
        self.put(&frame.bytes);
        self.pad();
        self.option(EPB_FLAGS, &direction.to_le_bytes());
        if lost > self.lost {
            self.option(EPB_DROPCOUNT, &(lost - self.lost).to_le_bytes());
        }
        self.option(EPB_QUEUE, &(frame.worker as u32).to_le_bytes());
        self.text(OPT_COMMENT, &comment(frame));
        self.end()?;
        self.lost = self.lost.max(lost);
        self.last = self.last.max(nanoseconds);
        self.written[interface as usize] += 1;
        Ok(())
    }

    /// Hands what was written on to whoever keeps it.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the section with how many frames each interface gave and how many were lost, and returns the output.
    ///
    /// Frames are lost by the capture as a whole: the number is with the first interface.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self, lost: u64) -> io::Result<W> {
        for interface in 0..self.written.len() {
            let written = self.written[interface];
            self.begin(STATISTICS);
            self.put(&(interface as u32).to_le_bytes());
            self.put(&((self.last >> 32) as u32).to_le_bytes());
            self.put(&(self.last as u32).to_le_bytes());
            self.option(ISB_USRDELIV, &written.to_le_bytes());
            self.option(ISB_IFDROP, &if interface == 0 { lost } else { 0 }.to_le_bytes());
            self.end()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// The number of the interface of a frame, which is described first if it is new.
    fn interface(&mut self, frame: &Captured) -> io::Result<u32> {
        let link = match frame.layer {
            Layer::Ethernet => LINKTYPE_ETHERNET,
            Layer::Ip => LINKTYPE_RAW,
            Layer::Datagram => LINKTYPE_WIRESHARK_UPPER_PDU,
        };
        let own = Place { link, at: Some((frame.at.clone(), frame.segment, frame.vni)) };
        if let Some(number) = self.interfaces.get(&own) {
            return Ok(*number);
        }
        let place =
            if self.interfaces.len() < MAX_INTERFACES { own } else { Place { link, at: None } };
        if let Some(number) = self.interfaces.get(&place) {
            return Ok(*number);
        }
        self.begin(INTERFACE);
        self.put(&link.to_le_bytes());
        // Reserved, and no limit to the bytes of a frame.
        self.put(&[0; 6]);
        let (name, description) = names(&place);
        self.text(IF_NAME, &name);
        self.text(IF_DESCRIPTION, &description);
        self.option(IF_TSRESOL, &[NANOSECONDS]);
        self.end()?;
        let number = self.written.len() as u32;
        self.written.push(0);
        self.interfaces.insert(place, number);
        Ok(number)
    }

    /// Begins a block, whose length is filled in at its end.
    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        self.put(&[0; 4]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    /// Fills up to 32 bits.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.put(&code.to_le_bytes());
        self.put(&(value.len() as u16).to_le_bytes());
        self.put(value);
        self.pad();
    }

    fn text(&mut self, code: u16, text: &str) {
        let mut len = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.option(code, &text.as_bytes()[..len]);
    }

    /// Ends the options and the block, and writes it.
    fn end(&mut self) -> io::Result<()> {
        self.option(OPT_END, &[]);
        let len = (self.block.len() as u32 + 4).to_le_bytes();
        self.put(&len);
        self.block[4..8].copy_from_slice(&len);
        self.out.write_all(&self.block)
    }
}

/// The name and the description of an interface.
fn names(place: &Place) -> (String, String) {
    let Some((at, segment, vni)) = &place.at else {
        return ("others".into(), "all further ports and VTEPs".into());
    };
    let name = match at {
        CapturePoint::Port { name, .. } => name.to_string(),
        CapturePoint::Vtep(address) => format!("vtep {address}"),
    };
    let what = match at {
        CapturePoint::Port { id, .. } => id.to_string(),
        CapturePoint::Vtep(address) => format!("VTEP {address}"),
    };
    let description = match (segment, vni) {
        (Some(segment), Some(vni)) if segment.vni != Some(*vni) => {
            format!("{what}, {segment}, VNI {vni}")
        }
        (Some(segment), _) => format!("{what}, {segment}"),
        (None, Some(vni)) => format!("{what}, VNI {vni}, of no segment"),
        (None, None) => format!("{what}, of no segment"),
    };
    (name, description)
}

/// What became of a frame, for people.
fn comment(frame: &Captured) -> String {
    match frame.fate {
        Fate::Dropped(reason) => {
            format!("dropped: {reason}: {} What to do: {}", reason.meaning(), reason.advice())
        }
        fate => fate.to_string(),
    }
}
