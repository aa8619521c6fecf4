//! A path info in bytes: about a third of its narinfo, and with exactly one encoding.
//!
//! ```text
//! hash part 20 · name (u8 length) · NAR hash 32 · NAR size u64 · flags u8 (1 deriver, 2 content address)
//! references u16 × { hash part 20 · name (u8 length) }         strictly ascending
//! deriver { hash part 20 · name (u8 length) }                   if flagged
//! signatures u8 × { key name (u8 length) · 64 }
//! content address text (u8 length)                              if flagged
//! ```
//!
//! The parser builds the checked types of `haulout-nix`, so a path info that comes out is well-formed; whether it is
//! *true* is for its signatures to say.

use haulout_nix::{
    ContentAddress, HashPart, NarHash, PathInfo, Signature, StorePath, StorePathName,
};

use crate::frames::{FrameError, Reader, too_large};

/// Most references of one path. The largest closures' top paths have some hundreds.
pub const REFERENCES_MAX: usize = 4_096;
/// Most signatures of one path.
pub const SIGNATURES_MAX: usize = 32;
/// Longest encoding: every field at its limit is below this.
pub const ENCODED_MAX: usize = 1 << 20;

const FLAG_DERIVER: u8 = 1;
const FLAG_CA: u8 = 2;
const WHAT: &str = "path info";

/// Encodes a path info.
///
/// # Errors
/// [`FrameError`] if it is above a limit; its references are sent sorted and unique whatever their order.
pub fn encode(info: &PathInfo) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::with_capacity(256 + info.references.len() * 56);
    put_path(&mut out, &info.path)?;
    out.extend(info.nar_hash.as_bytes());
    out.extend(info.nar_size.to_be_bytes());
    out.push(
        if info.deriver.is_some() { FLAG_DERIVER } else { 0 }
            | if info.ca.is_some() { FLAG_CA } else { 0 },
    );
    let mut references: Vec<&StorePath> = info.references.iter().collect();
    if !references.is_sorted_by(|a, b| a < b) {
        references.sort_unstable();
        references.dedup();
    }
    if references.len() > REFERENCES_MAX {
        return Err(too_large("references", references.len(), REFERENCES_MAX));
    }
    out.extend((references.len() as u16).to_be_bytes());
    for reference in references {
        put_path(&mut out, reference)?;
    }
    if let Some(deriver) = &info.deriver {
        put_path(&mut out, deriver)?;
    }
    if info.signatures.len() > SIGNATURES_MAX {
        return Err(too_large("signatures", info.signatures.len(), SIGNATURES_MAX));
    }
    out.push(info.signatures.len() as u8);
    for signature in &info.signatures {
        put_text(&mut out, signature.name())?;
        out.extend(signature.as_bytes());
    }
    if let Some(ca) = &info.ca {
        put_text(&mut out, &ca.to_string())?;
    }
    Ok(out)
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), FrameError> {
    let len = u8::try_from(text.len())
        .map_err(|_| too_large("text", text.len(), usize::from(u8::MAX)))?;
    out.push(len);
    out.extend(text.as_bytes());
    Ok(())
}

fn put_path(out: &mut Vec<u8>, path: &StorePath) -> Result<(), FrameError> {
    out.extend(path.hash_part().as_bytes());
    put_text(out, path.name())
}

/// Decodes exactly one path info.
///
/// # Errors
/// [`FrameError`] for anything but the canonical encoding of a well-formed path info.
pub fn decode(bytes: &[u8]) -> Result<PathInfo, FrameError> {
    if bytes.len() > ENCODED_MAX {
        return Err(too_large(WHAT, bytes.len(), ENCODED_MAX));
    }
    let mut reader = Reader::new(bytes, WHAT);
    let path = take_path(&mut reader)?;
    let nar_hash = NarHash::from_bytes(reader.array()?);
    let nar_size = reader.u64()?;
    let flags = reader.u8()?;
    if flags & !(FLAG_DERIVER | FLAG_CA) != 0 {
        return Err(FrameError::Bad("path info flags"));
    }
    let references = take_references(&mut reader)?;
    let deriver = if flags & FLAG_DERIVER == 0 { None } else { Some(take_path(&mut reader)?) };
    let signatures = take_signatures(&mut reader)?;
    let ca = if flags & FLAG_CA == 0 { None } else { Some(take_ca(&mut reader)?) };
    reader.end()?;
    Ok(PathInfo { path, nar_hash, nar_size, references, deriver, signatures, ca })
}

fn take_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, FrameError> {
    let len = usize::from(reader.u8()?);
    std::str::from_utf8(reader.take(len)?).map_err(|_| FrameError::Bad("text"))
}

fn take_path(reader: &mut Reader<'_>) -> Result<StorePath, FrameError> {
    let hash = HashPart::from_bytes(reader.array()?);
    let name: StorePathName =
        take_text(reader)?.parse().map_err(|_| FrameError::Bad("store path name"))?;
    Ok(StorePath::new(hash, name))
}

fn take_references(reader: &mut Reader<'_>) -> Result<Vec<StorePath>, FrameError> {
    let count = usize::from(reader.u16()?);
    if count > REFERENCES_MAX {
        return Err(too_large("references", count, REFERENCES_MAX));
    }
    let mut references: Vec<StorePath> = Vec::new();
    for _ in 0..count {
        let reference = take_path(reader)?;
        if references.last().is_some_and(|last| *last >= reference) {
            return Err(FrameError::Bad("order of references"));
        }
        references.push(reference);
    }
    Ok(references)
}

fn take_signatures(reader: &mut Reader<'_>) -> Result<Vec<Signature>, FrameError> {
    let count = usize::from(reader.u8()?);
    if count > SIGNATURES_MAX {
        return Err(too_large("signatures", count, SIGNATURES_MAX));
    }
    let mut signatures = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_text(reader)?;
        let bytes = reader.array()?;
        signatures.push(
            Signature::new(name, bytes).map_err(|_| FrameError::Bad("signature's key name"))?,
        );
    }
    Ok(signatures)
}

fn take_ca(reader: &mut Reader<'_>) -> Result<ContentAddress, FrameError> {
    let text = take_text(reader)?;
    let ca: ContentAddress = text.parse().map_err(|_| FrameError::Bad("content address"))?;
    // One encoding only: the text must be the canonical one.
    if ca.to_string() == text { Ok(ca) } else { Err(FrameError::Bad("content address")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn path(seed: u8, name: &str) -> StorePath {
        StorePath::new(HashPart::from_bytes([seed; 20]), name.parse().unwrap())
    }

    fn sample() -> PathInfo {
        PathInfo {
            path: path(9, "hello-2.12"),
            nar_hash: NarHash::from_bytes([5; 32]),
            nar_size: 123_456,
            references: vec![path(1, "glibc-2.40"), path(9, "hello-2.12")],
            deriver: Some(path(3, "hello-2.12.drv")),
            signatures: vec![Signature::new("cache.example-1", [7; 64]).unwrap()],
            ca: None,
        }
    }

    #[test]
    fn one_encoding_and_no_other() {
        let info = sample();
        let bytes = encode(&info).unwrap();
        assert_eq!(decode(&bytes).unwrap(), info);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(decode(&long), Err(FrameError::Trailing(WHAT)));
        let mut unsorted = info;
        unsorted.references.reverse();
        assert_eq!(encode(&unsorted).unwrap(), bytes);
    }

    #[test]
    fn unsorted_references_and_bad_names_are_refused() {
        let mut info = sample();
        info.references = vec![path(1, "a"), path(2, "b")];
        info.deriver = None;
        let bytes = encode(&info).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("hello"));
        // The two references are the 22-byte records after the fixed part.
        let at = 20 + 1 + 10 + 32 + 8 + 1 + 2;
        let mut swapped = bytes.clone();
        swapped.copy_within(at + 22..at + 44, at);
        swapped[at + 22..at + 44].copy_from_slice(&bytes[at..at + 22]);
        assert_eq!(decode(&swapped), Err(FrameError::Bad("order of references")));
        let mut slash = bytes.clone();
        slash[21] = b'/';
        assert_eq!(decode(&slash), Err(FrameError::Bad("store path name")));
        let mut flags = bytes;
        flags[at - 3] |= 0x80;
        assert_eq!(decode(&flags), Err(FrameError::Bad("path info flags")));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_not_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(info) = decode(&bytes) {
                prop_assert_eq!(encode(&info).unwrap(), bytes);
            }
        }

        #[test]
        fn flipped_bits_give_another_canonical_encoding_or_an_error(at in 0_usize..240, bit in 0_u8..8) {
            let mut bytes = encode(&sample()).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(info) = decode(&bytes) {
                prop_assert_eq!(encode(&info).unwrap(), bytes);
            }
        }
    }
}
