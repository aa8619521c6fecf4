//! Site objects on the wire: the request for a segment, the frames of the answer, and an agent's standing.
//!
//! Pure functions; byte layouts and limits are in `docs/protocol.md`.

use bytes::Bytes;
use haulout_swarm::rate::Urgency;
use haulout_swarm::site::{
    Cut, DESCRIPTOR_MAX, DOCUMENT_MAX, OUTSIDES_MAX, OutsideId, SegmentKey, SiteKey, SiteKind,
    Standing,
};

use crate::frames::{FrameError, Reader, checked_len};

/// Bytes before a frame's data, of a frame that is not packed.
pub const SITE_HEADER_LEN: usize = 4;
/// Bytes of the second word that a packed frame has.
pub const SITE_PACKED_LEN: usize = 4;
/// Most bytes in one frame.
pub const SITE_FRAME_MAX: usize = 256 << 10;
/// Longest body of a standing accepted (later versions may append fields).
pub const STANDING_BODY_MAX: usize = 256;

/// Frame heads from here on are no lengths: the low byte says how the answer ends.
const END_BASE: u32 = 0xffff_ff00;
/// In the head of a frame whose data is compressed (minor version 6). A second word has the length of what it stands for.
const PACKED: u32 = 1 << 31;
const FLAG_WILLING: u8 = 1;
/// In a request.
const FLAG_HELD: u8 = 1;
const FLAG_AHEAD: u8 = 2;
const FLAG_PACKED: u8 = 4;

/// "Give me this segment, from this byte on; fetch it for the site if you have to."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRequest {
    /// Which segment of which object.
    pub segment: SegmentKey,
    /// Size of the object; `None` for a document, whose size nobody knows before it is here.
    pub size: Option<Cut>,
    /// First byte wanted, counted from the segment's start. Always 0 for a document.
    pub from: u64,
    /// Where the object is to be had. Only an agent that is itself configured for this place fetches.
    pub outside: OutsideId,
    /// What else a home must know to fetch it, at most [`DESCRIPTOR_MAX`] bytes. Its form is the business of the kind; it
    /// never is an address.
    pub descriptor: Bytes,
    /// Only if it is complete there, or coming from outside: nothing is fetched or relayed for it otherwise.
    pub held: bool,
    /// Whether somebody waits for it.
    pub urgency: Urgency,
    /// Whether frames of the answer may be compressed. The mesh says so itself where both ends can.
    pub packed: bool,
}

impl SiteRequest {
    /// Length of the segment in bytes; `None` for a document.
    #[must_use]
    pub fn segment_len(&self) -> Option<u64> {
        let range = self.size?.range(self.segment.index);
        Some(range.end - range.start)
    }

    pub(crate) fn encode_to(&self, body: &mut Vec<u8>) {
        body.push(self.segment.object.kind.to_byte());
        body.extend(self.segment.object.id);
        body.extend(self.segment.index.to_be_bytes());
        body.extend(self.size.map_or(0, Cut::size).to_be_bytes());
        // A segment has four megabytes.
        body.extend(u32::try_from(self.from).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(self.outside.as_bytes());
        let descriptor = self.descriptor.get(..DESCRIPTOR_MAX).unwrap_or(&self.descriptor);
        body.push(u8::try_from(descriptor.len()).unwrap_or(u8::MAX));
        body.extend(descriptor);
        let ahead = self.urgency == Urgency::Ahead;
        let flags = if self.held { FLAG_HELD } else { 0 }
            | if ahead { FLAG_AHEAD } else { 0 }
            | if self.packed { FLAG_PACKED } else { 0 };
        if flags != 0 {
            body.push(flags);
        }
    }

    /// `None` for a kind of object that this version does not know.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Option<Self>, FrameError> {
        let kind = SiteKind::from_byte(reader.u8()?);
        let id = reader.array()?;
        let index = reader.u32()?;
        let size = reader.u64()?;
        let from = u64::from(reader.u32()?);
        let outside = OutsideId::from_bytes(reader.array()?);
        let len = checked_len("descriptor", u32::from(reader.u8()?), DESCRIPTOR_MAX)?;
        let descriptor = Bytes::copy_from_slice(reader.take(len)?);
        // Appended by minor version 3, the second by 4, the third by 6; other flags belong to later ones.
        let flags = reader.u8().unwrap_or(0);
        let held = flags & FLAG_HELD != 0;
        let urgency = if flags & FLAG_AHEAD == 0 { Urgency::Awaited } else { Urgency::Ahead };
        let packed = flags & FLAG_PACKED != 0;
        let Some(kind) = kind else { return Ok(None) };
        let size = match size {
            0 => None,
            size => Some(Cut::of(kind, size).ok_or(FrameError::Bad("object size"))?),
        };
        let segment = SiteKey { kind, id }.segment(index);
        let request = Self { segment, size, from, outside, descriptor, held, urgency, packed };
        let fits = match request.segment_len() {
            Some(len) => from < len,
            None => from == 0 && index == 0,
        };
        if fits { Ok(Some(request)) } else { Err(FrameError::Bad("segment")) }
    }
}

/// How an answer ends, when it does not end by being complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteEnd {
    /// Everything was sent.
    Complete,
    /// The outside was asked and does not have it.
    Absent,
    /// This agent does not fetch it: unwilling, not configured for that place, or it does not believe in the object.
    Refused,
    /// At a limit.
    Busy,
    /// The outside could not be reached, or broke off.
    Failed,
}

impl SiteEnd {
    const ALL: [Self; 5] = [Self::Complete, Self::Absent, Self::Refused, Self::Busy, Self::Failed];

    const fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Absent => 1,
            Self::Refused => 2,
            Self::Busy => 3,
            Self::Failed => 4,
        }
    }
}

/// One frame of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteFrame {
    /// Nothing yet, but the sender is alive and waits for it.
    Waiting,
    /// The next bytes.
    Bytes(Bytes),
    /// Nothing follows.
    End(SiteEnd),
}

/// What the head of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteHead {
    /// See [`SiteFrame::Waiting`].
    Waiting,
    /// So many bytes follow, 1 to [`SITE_FRAME_MAX`].
    Bytes(usize),
    /// [`SITE_PACKED_LEN`] bytes follow, see [`parse_packed`], and then one zstd frame of so many bytes.
    Packed(usize),
    /// See [`SiteFrame::End`].
    End(SiteEnd),
}

/// The head of a frame. Data must not be longer than [`SITE_FRAME_MAX`].
#[must_use]
pub fn site_header(frame: &SiteFrame) -> [u8; SITE_HEADER_LEN] {
    let head = match frame {
        SiteFrame::Waiting => 0,
        SiteFrame::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        SiteFrame::End(end) => END_BASE | u32::from(end.code()),
    };
    head.to_be_bytes()
}

/// Reads the head of a frame, of which at most `left` bytes are still due.
///
/// # Errors
/// [`FrameError`] for more bytes than are due, and for ends without a meaning.
pub fn parse_site_header(header: [u8; SITE_HEADER_LEN], left: u64) -> Result<SiteHead, FrameError> {
    let head = u32::from_be_bytes(header);
    if head == 0 {
        return Ok(SiteHead::Waiting);
    }
    if head >= END_BASE {
        let [.., code] = header;
        let end = SiteEnd::ALL.into_iter().find(|end| end.code() == code);
        return end.map(SiteHead::End).ok_or(FrameError::Bad("end of a site object"));
    }
    let max = longest(left);
    match head & PACKED {
        0 => checked_len("frame of a site object", head, max).map(SiteHead::Bytes),
        // What is packed is shorter than what it stands for.
        _ if max == 0 || head == PACKED => Err(FrameError::Bad("packed frame of a site object")),
        _ => checked_len("packed frame of a site object", head & !PACKED, max - 1)
            .map(SiteHead::Packed),
    }
}

/// The head and the second word of a frame whose `len` bytes of data are one zstd frame of `raw_len` bytes.
#[must_use]
pub fn packed_header(len: usize, raw_len: usize) -> [u8; SITE_HEADER_LEN + SITE_PACKED_LEN] {
    // Both are at most SITE_FRAME_MAX.
    let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let [a, b, c, d] = (word(len) | PACKED).to_be_bytes();
    let [e, f, g, h] = word(raw_len).to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Reads the second word of a packed frame of `len` bytes, of which at most `left` unpacked bytes are still due: how many it
/// stands for.
///
/// # Errors
/// [`FrameError`] for more than are due or fit a frame, and for no more than came.
pub fn parse_packed(
    word: [u8; SITE_PACKED_LEN],
    len: usize,
    left: u64,
) -> Result<usize, FrameError> {
    let raw_len =
        checked_len("packed frame of a site object", u32::from_be_bytes(word), longest(left))?;
    if raw_len > len {
        Ok(raw_len)
    } else {
        Err(FrameError::Bad("packed frame that is no shorter"))
    }
}

fn longest(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(SITE_FRAME_MAX)
}

/// Bytes that may come in answer to a request.
#[must_use]
pub fn due(request: &SiteRequest) -> u64 {
    request.segment_len().map_or(DOCUMENT_MAX, |len| len.saturating_sub(request.from))
}

/// A standing as the one-way stream carries it, without the kind: length, body.
#[must_use]
pub fn encode_standing(standing: &Standing) -> Vec<u8> {
    let outsides = standing.outsides.get(..OUTSIDES_MAX).unwrap_or(&standing.outsides);
    let mut body = Vec::with_capacity(6 + 4 * outsides.len());
    body.extend(standing.sequence.to_be_bytes());
    body.push(if standing.willing { FLAG_WILLING } else { 0 });
    body.push(u8::try_from(outsides.len()).unwrap_or(u8::MAX));
    for outside in outsides {
        body.extend(outside.to_be_bytes());
    }
    let mut out = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    out.extend(body);
    out
}

/// Reads the body of a standing. Unknown flags and bytes after the known fields belong to later versions.
///
/// # Errors
/// [`FrameError`] if a known field is missing or out of range.
pub fn decode_standing(body: &[u8]) -> Result<Standing, FrameError> {
    let mut reader = Reader::new(body, "standing");
    let sequence = reader.u32()?;
    let willing = reader.u8()? & FLAG_WILLING != 0;
    let count = checked_len("standing", u32::from(reader.u8()?), OUTSIDES_MAX)?;
    let outsides = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    Ok(Standing { sequence, willing, outsides })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frames::{REQUEST_HEADER_LEN, Request};

    fn request(size: u64, index: u32, from: u64, descriptor: &[u8]) -> SiteRequest {
        SiteRequest {
            segment: SiteKey { kind: SiteKind::UpstreamFile, id: [3; 32] }.segment(index),
            size: Cut::new(size),
            from,
            outside: OutsideId::from_bytes([4; 32]),
            descriptor: Bytes::copy_from_slice(descriptor),
            held: false,
            urgency: Urgency::Awaited,
            packed: false,
        }
    }

    fn decode(bytes: &[u8]) -> Result<Request, FrameError> {
        let (header, body) = bytes.split_first_chunk::<REQUEST_HEADER_LEN>().unwrap();
        assert_eq!(Request::body_len(*header).unwrap(), body.len());
        Request::decode(header[0], body)
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = Request::Site(request(10 << 20, 1, 5, b"abc")).encode();
        let expected = [
            &[4, 0, 85, 2][..],
            &[3; 32],
            &[0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0xa0, 0, 0],
            &[0, 0, 0, 5],
            &[4; 32],
            b"\x03abc",
        ];
        assert_eq!(bytes, expected.concat());
        let standing = Standing {
            sequence: 9,
            willing: true,
            outsides: [1, 0xffff_ffff].into_iter().collect(),
        };
        let bytes = encode_standing(&standing);
        assert_eq!(bytes, [0, 14, 0, 0, 0, 9, 1, 2, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decode_standing(&bytes[2..]), Ok(standing));
    }

    #[test]
    fn requests_round_trip_and_fit() {
        let longest = [7; DESCRIPTOR_MAX];
        for (size, index, from) in [(1, 0, 0), (10 << 20, 2, 100), (0, 0, 0)] {
            let request = Request::Site(request(size, index, from, &longest));
            assert_eq!(decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn only_what_is_there_is_a_flag_at_the_end() {
        let outright = request(10 << 20, 1, 5, &[7; DESCRIPTOR_MAX]);
        let plain = Request::Site(outright.clone());
        for (flags, held, urgency, packed) in [
            (1, true, Urgency::Awaited, false),
            (2, false, Urgency::Ahead, false),
            (4, false, Urgency::Awaited, true),
            (7, true, Urgency::Ahead, true),
        ] {
            let flagged = Request::Site(SiteRequest { held, urgency, packed, ..outright.clone() });
            assert_eq!(flagged.encode()[3..], [&plain.encode()[3..], &[flags]].concat());
            assert_eq!(decode(&flagged.encode()), Ok(flagged));
        }
        // Flags of later versions are none of these.
        let mut later = plain.encode();
        later[2] += 1;
        later.push(0xf8);
        assert_eq!(decode(&later), Ok(plain));
    }

    #[test]
    fn a_nar_has_smaller_segments() {
        let mut request = request(0, 3, 7, b"");
        request.segment.object.kind = SiteKind::Nar;
        request.size = Cut::of(SiteKind::Nar, 4 << 20);
        assert_eq!(request.segment_len(), Some(1 << 20));
        let request = Request::Site(request);
        assert_eq!(request.encode()[3], 6);
        assert_eq!(decode(&request.encode()), Ok(request));
    }

    #[test]
    fn what_lies_outside_the_object_is_refused() {
        for (size, index, from) in
            [(1, 1, 0), (1, 0, 1), (10 << 20, 3, 0), (10 << 20, 2, 2 << 20), (0, 1, 0), (0, 0, 1)]
        {
            let bytes = Request::Site(request(size, index, from, b"")).encode();
            assert_eq!(decode(&bytes), Err(FrameError::Bad("segment")), "{size} {index} {from}");
        }
        let mut huge = Request::Site(request(1, 0, 0, b"")).encode();
        huge[3 + 37..3 + 45].fill(0xff);
        assert_eq!(decode(&huge), Err(FrameError::Bad("object size")));
        let mut long = Request::Site(request(1, 0, 0, b"")).encode();
        long[3 + 81] = 200;
        assert!(matches!(decode(&long), Err(FrameError::TooLarge { .. })));
        let mut later = Request::Site(request(1, 0, 0, b"")).encode();
        later[3] = 99;
        assert_eq!(decode(&later), Ok(Request::Unknown(4)));
    }

    #[test]
    fn frames_are_bounded_by_what_is_due() {
        let header = |frame| site_header(&frame);
        assert_eq!(parse_site_header(header(SiteFrame::Waiting), 0), Ok(SiteHead::Waiting));
        let ten = header(SiteFrame::Bytes(Bytes::from_static(&[0; 10])));
        assert_eq!(parse_site_header(ten, 10), Ok(SiteHead::Bytes(10)));
        assert!(parse_site_header(ten, 9).is_err());
        let (head, word) = (*packed_header(10, 30).first_chunk().unwrap(), [0, 0, 0, 30]);
        assert_eq!(packed_header(10, 30), [0x80, 0, 0, 10, 0, 0, 0, 30]);
        assert_eq!(parse_site_header(head, 11), Ok(SiteHead::Packed(10)));
        assert!(parse_site_header(head, 10).is_err() && parse_site_header(head, 0).is_err());
        assert!(parse_site_header([0x80, 0, 0, 0], 99).is_err());
        assert!(parse_site_header([0x80, 4, 0, 0], u64::MAX).is_err());
        assert_eq!(parse_packed(word, 10, 30), Ok(30));
        assert!(parse_packed(word, 10, 29).is_err() && parse_packed(word, 30, 30).is_err());
        assert!(parse_packed([0, 4, 0, 1], 10, u64::MAX).is_err(), "longer than any frame");
        for end in SiteEnd::ALL {
            assert_eq!(parse_site_header(header(SiteFrame::End(end)), 0), Ok(SiteHead::End(end)));
        }
        assert!(parse_site_header([0xff, 0xff, 0xff, 9], 0).is_err());
        assert!(parse_site_header([0, 4, 0, 1], u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_standing_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(standing) = decode_standing(&bytes) {
                prop_assert_eq!(decode_standing(&encode_standing(&standing)[2..]), Ok(standing));
            }
        }
    }
}
