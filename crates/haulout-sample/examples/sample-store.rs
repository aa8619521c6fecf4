//! Makes a sample store and says how long it took:
//! `cargo run --release -p haulout-sample --example sample-store -- ROOT [PATHS [BYTES [GENERATION]]]`

use std::time::Instant;

use haulout_nix::SecretKey;
use haulout_nix::db::Database;
use haulout_sample::{Sample, SampleSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: sample-store ROOT [PATHS [BYTES [GENERATION]]]")?;
    let paths = arguments.next().map_or(Ok(300), |text| text.parse())?;
    let bytes = arguments.next().map_or(Ok(60 << 20), |text| text.parse())?;
    let generation = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let key = SecretKey::from_seed("sample-1", [9; 32])?;
    let spec = SampleSpec { generation, ..SampleSpec::new(1, paths, bytes, &key) };

    let start = Instant::now();
    let store = Sample::generate(root.as_ref(), spec)?;
    let mut sizes: Vec<u64> = store.paths.iter().map(|info| info.nar_size).collect();
    sizes.sort_unstable();
    let references: usize = store.paths.iter().map(|info| info.references.len()).sum();
    println!("made {} of {} paths in {:.2?}", store.written.len(), paths, start.elapsed());
    println!(
        "{} bytes of NAR; median {}, 90 % below {}, largest {}; {:.1} references a path",
        sizes.iter().sum::<u64>(),
        sizes[sizes.len() / 2],
        sizes[sizes.len() * 9 / 10],
        sizes[sizes.len() - 1],
        references as f64 / paths as f64,
    );
    println!("key {}", key.public_key());
    println!("top {}", store.location.store_dir.display(&store.top));

    let start = Instant::now();
    let rows = Database::open(&store.location)?.load()?.map_or(0, |snapshot| snapshot.rows.len());
    println!("{rows} rows read in {:.2?}", start.elapsed());
    Ok(())
}
