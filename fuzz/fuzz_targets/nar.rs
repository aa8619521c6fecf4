//! The NAR decoder: what it accepts is what an encoder writes, however it arrives.

#![no_main]

use haulout_nix::nar::{Decoder, Visitor};
use std::io;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = decode(data, data.len().max(1));
    // The first byte chooses other pieces, so that every state is met at a piece's edge.
    let piece = usize::from(data.first().copied().unwrap_or(0)) % 17 + 1;
    assert_eq!(whole, decode(data, piece));
    if let Some(encoded) = whole {
        assert_eq!(encoded, data);
    }
});

fn decode(data: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (mut decoder, mut encoder) = (Decoder::new(), Encoder::default());
    put(&mut encoder.out, b"nix-archive-1");
    for piece in data.chunks(piece) {
        decoder.push(piece, &mut encoder).ok()?;
    }
    decoder.finish().ok().map(|()| encoder.out)
}

/// Writes again what the decoder tells.
#[derive(Default)]
struct Encoder {
    out: Vec<u8>,
    depth: usize,
    padding: usize,
}

impl Encoder {
    fn words(&mut self, words: &[&[u8]]) {
        words.iter().for_each(|word| put(&mut self.out, word));
    }

    fn open(&mut self, name: &[u8], kind: &[u8]) {
        if self.depth > 0 {
            self.words(&[b"entry", b"(", b"name", name, b"node"]);
        }
        self.words(&[b"(", b"type", kind]);
    }

    fn close(&mut self) {
        self.words(if self.depth > 0 { &[b")", b")"] } else { &[b")"] });
    }
}

impl Visitor for Encoder {
    fn enter_directory(&mut self, name: &[u8]) -> io::Result<()> {
        self.open(name, b"directory");
        self.depth += 1;
        Ok(())
    }

    fn leave_directory(&mut self) -> io::Result<()> {
        self.depth -= 1;
        self.close();
        Ok(())
    }

    fn start_file(&mut self, name: &[u8], executable: bool, size: u64) -> io::Result<()> {
        self.open(name, b"regular");
        if executable {
            self.words(&[b"executable", b""]);
        }
        self.words(&[b"contents"]);
        self.out.extend_from_slice(&size.to_le_bytes());
        self.padding = (size.wrapping_neg() % 8) as usize;
        Ok(())
    }

    fn file_data(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(data);
        Ok(())
    }

    fn end_file(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(&[0; 8][..self.padding]);
        self.close();
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.open(name, b"symlink");
        self.words(&[b"target", target]);
        self.close();
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, word: &[u8]) {
    out.extend_from_slice(&(word.len() as u64).to_le_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(&[0; 8][..word.len().wrapping_neg() % 8]);
}
