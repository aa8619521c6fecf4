//! Every method, and files that lie about their contents.

use std::io::Write;

use bytes::Bytes;
use haulout_nix::Compression;
use proptest::prelude::*;

use super::*;

fn pack(compression: &Compression, nar: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => nar.to_vec(),
        Compression::Xz => {
            let options = lzma_rust2::XzOptions::default();
            let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            writer.write_all(nar).unwrap();
            writer.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(nar, 3).unwrap(),
        Compression::Bzip2 => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(nar).unwrap();
            writer.finish().unwrap()
        }
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(nar).unwrap();
            writer.finish().unwrap()
        }
        // Uncompressed meta-blocks of at most 64 KiB in a stream of window 22: RFC 7932 §9.
        Compression::Brotli => stored_brotli(nar),
        Compression::Other(_) => panic!("no such thing"),
    }
}

/// A brotli stream that only stores: window bits `1000011` (2^24 is `1111`; 22 is `1011`), then per
/// piece ISLAST=0, MNIBBLES=4, MLEN-1, ISUNCOMPRESSED=1, to a byte boundary, the bytes; at last
/// ISLAST=1, ISLASTEMPTY=1.
fn stored_brotli(nar: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut filled) = (0b1011u64, 4u32);
    for piece in nar.chunks(1 << 16) {
        let header = ((piece.len() as u64 - 1) << 3) | (1 << 19);
        bits |= header << filled;
        filled += 20;
        while filled > 0 {
            out.push(bits as u8);
            bits >>= 8;
            filled = filled.saturating_sub(8);
        }
        out.extend_from_slice(piece);
        bits = 0;
    }
    bits |= 0b11 << filled;
    out.push(bits as u8);
    out
}

const ALL: [Compression; 6] = [
    Compression::None,
    Compression::Xz,
    Compression::Zstd,
    Compression::Bzip2,
    Compression::Gzip,
    Compression::Brotli,
];

fn in_pieces(bytes: &[u8], size: usize) -> Vec<Result<Bytes, Trouble>> {
    bytes.chunks(size.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

async fn unpack(
    compression: &Compression,
    size: u64,
    file: Vec<Result<Bytes, Trouble>>,
) -> Result<Vec<u8>, Trouble> {
    collect(decompress(compression, size, futures_util::stream::iter(file)).unwrap()).await
}

#[tokio::test]
async fn every_method_gives_the_nar_back() {
    let nar = Path::new(1, 700_000).nar;
    for compression in &ALL {
        let file = pack(compression, &nar);
        for piece in [777, 1 << 20] {
            let got = unpack(compression, 700_000, in_pieces(&file, piece)).await;
            assert_eq!(got.as_ref(), Ok(&nar), "{compression}");
        }
    }
}

#[tokio::test]
async fn sizes_must_be_exact() {
    let nar = Path::new(1, 300_000).nar;
    for compression in &ALL {
        let file = pack(compression, &nar);
        let short = unpack(compression, 299_999, in_pieces(&file, 9999)).await;
        assert_eq!(short, Err(Trouble::TooLong(299_999)), "{compression}");
        let long = unpack(compression, 300_001, in_pieces(&file, 9999)).await;
        assert_eq!(long, Err(Trouble::Truncated(300_000)), "{compression}");
        // A file that ends early is never a NAR, whatever the decoder makes of it.
        let half = unpack(compression, 300_000, in_pieces(&file[..file.len() / 2], 9999)).await;
        assert!(half.is_err(), "{compression}");
        let broken = vec![Ok(Bytes::copy_from_slice(&file[..100])), Err(Trouble::Status(500))];
        let broken = unpack(compression, 300_000, broken).await;
        assert_eq!(broken, Err(Trouble::Status(500)), "{compression}: the cause is kept");
    }
}

#[tokio::test]
async fn a_bomb_ends_one_byte_after_nar_size() {
    let zeros = vec![0; 8 << 20];
    for compression in [Compression::Xz, Compression::Zstd, Compression::Bzip2, Compression::Gzip] {
        let bomb = pack(&compression, &zeros);
        assert!(bomb.len() < 1_000_000);
        let mut stream =
            decompress(&compression, 1000, futures_util::stream::iter(in_pieces(&bomb, 4096)))
                .unwrap();
        let mut given = 0;
        let ended = loop {
            match stream.next().await {
                Some(Ok(bytes)) => given += bytes.len(),
                Some(Err(trouble)) => break trouble,
                None => panic!("ended well"),
            }
        };
        assert_eq!((ended, given), (Trouble::TooLong(1000), 0), "{compression}");
    }
}

#[tokio::test]
async fn memory_bombs_are_refused() {
    // A header that asks for a dictionary of 4 GiB: property byte 40 of LZMA2.
    let mut xz = pack(&Compression::Xz, b"hello");
    // Block header: size, flags, filter id 0x21, size of properties 1, dictionary size.
    assert_eq!(xz[14..16], [0x21, 0x01]);
    xz[16] = 40;
    let crc = crc32(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.to_le_bytes());
    let refused = unpack(&Compression::Xz, 5, in_pieces(&xz, 4096)).await;
    assert!(
        matches!(&refused, Err(Trouble::Malformed(why)) if why.contains("memory")),
        "{refused:?}"
    );

    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(28).unwrap();
    zstd.include_contentsize(false).unwrap();
    zstd.write_all(b"hello").unwrap();
    let zstd = zstd.finish().unwrap();
    let refused = unpack(&Compression::Zstd, 5, in_pieces(&zstd, 4096)).await;
    assert!(matches!(refused, Err(Trouble::Malformed(_))), "{refused:?}");
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[tokio::test]
async fn concatenated_files_are_one_nar() {
    let nar = Path::new(1, 100_000).nar;
    for compression in [Compression::Xz, Compression::Zstd, Compression::Bzip2, Compression::Gzip] {
        let file =
            [pack(&compression, &nar[..60_000]), pack(&compression, &nar[60_000..])].concat();
        assert_eq!(
            unpack(&compression, 100_000, in_pieces(&file, 5000)).await.as_ref(),
            Ok(&nar),
            "{compression}"
        );
    }
    assert!(
        decompress(&Compression::Other("lz4".into()), 1, futures_util::stream::empty()).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Rubbish ends with an error, in bounded time.
    #[test]
    fn rubbish_is_refused(which in 1usize..6, mut bytes in prop::collection::vec(any::<u8>(), 0..600), head in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        if head {
            let good = pack(&ALL[which], b"something to begin with");
            bytes.splice(0..0, good[..good.len() / 2].iter().copied());
        }
        let got = runtime.block_on(unpack(&ALL[which], 1 << 20, in_pieces(&bytes, 64)));
        prop_assert!(got.is_err());
    }
}
