//! Bytes for files: text, something like machine code, and noise. What does
//! not repeat is generated, never taken from a pool: a compressor with a long
//! window would find the pool again.

use std::io::{self, Write};

use crate::rng::Rng;

const PIECE: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Compresses to about a third.
    Text,
    /// Compresses to about a half.
    Code,
    /// Does not compress.
    Noise,
}

/// Tables that are made once per store.
pub(crate) struct Content {
    /// 256 words of up to 15 letters: first byte is the length.
    words: Vec<[u8; 16]>,
    /// Snippets of "machine code".
    fragments: Vec<[u8; 16]>,
}

impl Content {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, &[b"content"]);
        let words = (0..512)
            .map(|_| {
                let mut word = [b' '; 16];
                let letters = 2 + rng.below(10);
                for letter in &mut word[1..=letters] {
                    *letter = b"etaoinshrdlucmfwypvbgkqjxz_"[rng.below(27)];
                }
                let end = if rng.chance(0.08) { b'\n' } else { b' ' };
                word[letters + 1] = end;
                word[0] = letters as u8 + 1;
                word
            })
            .collect();
        let fragments = (0..1024)
            .map(|_| {
                let mut fragment = [0; 16];
                fragment[..8].copy_from_slice(&(rng.next() & rng.next()).to_le_bytes());
                fragment[8..].copy_from_slice(&(rng.next() & rng.next()).to_le_bytes());
                fragment
            })
            .collect();
        Self { words, fragments }
    }

    /// Writes `len` bytes of a kind.
    pub(crate) fn write(
        &self,
        kind: Kind,
        rng: &mut Rng,
        len: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE + 64);
        let mut left = len;
        while left > 0 {
            piece.clear();
            let want = left.min(PIECE as u64) as usize;
            while piece.len() < want {
                self.some(kind, rng, &mut piece);
            }
            piece.truncate(want);
            out.write_all(&piece)?;
            left -= want as u64;
        }
        Ok(())
    }

    fn some(&self, kind: Kind, rng: &mut Rng, piece: &mut Vec<u8>) {
        let mut bits = rng.next();
        match kind {
            Kind::Noise => piece.extend_from_slice(&bits.to_le_bytes()),
            Kind::Text => {
                for _ in 0..6 {
                    // The smaller of two: a few words are frequent.
                    let index = (bits & 511).min((bits >> 9) & 511) as usize;
                    let word = &self.words[index];
                    piece.extend_from_slice(&word[1..=usize::from(word[0])]);
                    bits = bits.rotate_right(10);
                }
            }
            Kind::Code => {
                let fragment = &self.fragments[(bits & 1023) as usize];
                piece.extend_from_slice(fragment);
                if bits & (1 << 20) != 0 {
                    piece.extend_from_slice(&bits.to_le_bytes());
                }
            }
        }
    }
}
