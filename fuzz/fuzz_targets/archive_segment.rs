//! Root blobs of an index, by all the steps of a reader. The hashes that would stop a random
//! change at the first step are made to fit.

#![no_main]

use haulout_archive::{Directory, Footer, Page, merkle, segment::FOOTER_BYTES};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(at) = data.len().checked_sub(FOOTER_BYTES) else { return };
    let end = &data[at..];
    let Ok(mut footer) = Footer::decode(end, &merkle::root(end)) else { return };
    let Ok(range) = footer.directory_range(data.len() as u64) else { return };
    let bytes = &data[range.start as usize..range.end as usize];
    footer.directory_digest = merkle::hash(&[bytes]);
    let Ok(directory) = Directory::decode(&footer, bytes) else { return };
    let piece = |range: std::ops::Range<u64>| data.get(range.start as usize..range.end as usize);
    for (number, record) in (0u64..).zip(directory.pages()) {
        let Some(place) = directory.page_place(number) else { continue };
        if let Some(stored) = piece(place.range)
            && let Ok(page) = Page::open(&footer, number, record, stored)
        {
            for at in 0..page.len() {
                let _ = page.entry(at);
            }
        }
    }
    for chunk in 0..directory.chunks() {
        if let Some(stored) = directory.chunk_range(chunk).and_then(piece) {
            let _ = directory.open_chunk(chunk, stored);
        }
    }
});
