//! A blob that is said to be a quilt: the index and every file are read without harm.
//! The first byte chooses the number of shards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redstuff::{ShardCount, quilt::QuiltView};

fuzz_target!(|bytes: &[u8]| {
    let Some((&shards, blob)) = bytes.split_first() else { return };
    let n = ShardCount::new(4 + u16::from(shards % 16)).unwrap();
    let unit = usize::try_from(n.source_symbol_count()).unwrap() * 2;
    // Only whole matrices can be quilts.
    let blob = &blob[..blob.len() / unit * unit];
    let Ok(view) = QuiltView::of_blob(n, blob) else { return };
    let columns = n.min_correct();
    for start in 0..columns {
        let _ = view.file_at(start..columns);
    }
    if let Ok(index) = view.index() {
        for patch in index.patches() {
            if let Ok(file) = view.file(patch) {
                assert!(file.data.len() < blob.len());
            }
        }
    }
});
