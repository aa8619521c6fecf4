//! Nix's own base 32: the alphabet leaves out `e o t u`, and the last byte comes first.
//!
//! Reading the bytes as one little-endian number and writing that number in base 32 with the most
//! significant digit first gives the same text. A useful consequence: comparing two texts of equal
//! length is comparing their bytes back to front.

use std::fmt;

const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Marks a byte that is no digit in [`DIGITS`].
const NO_DIGIT: u8 = 0xff;

const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// Why a text is not the nix32 form of the wanted number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nix32Error {
    /// The text has the wrong length for the number of bytes wanted.
    #[error("{got} characters where nix32 needs {want}")]
    Length {
        /// Characters needed.
        want: usize,
        /// Characters found.
        got: usize,
    },
    /// A character outside the alphabet.
    #[error("character {index} is not in the nix32 alphabet (0-9 a-z without e o t u)")]
    Character {
        /// Position of the character, in bytes from the start.
        index: usize,
    },
    /// Bits that belong to no byte are set, so that another text would mean the same bytes.
    #[error("the first character sets bits beyond the last byte")]
    SurplusBits,
}

/// The number of characters that `bytes` bytes take: 20 → 32, 32 → 52, 64 → 103.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Encodes `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    text.extend(digits(bytes).map(char::from));
    text
}

/// Writes the encoding of `bytes` to a formatter without allocating.
pub(crate) fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    /// The longest text this crate writes: a 64-byte hash.
    const TEXT_MAX: usize = encoded_len(64);
    let mut text = [0u8; TEXT_MAX];
    let len = encoded_len(bytes.len());
    for (slot, digit) in text.iter_mut().zip(digits(bytes)) {
        *slot = digit;
    }
    f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
}

fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    (0..encoded_len(bytes.len())).rev().map(|k| {
        let (i, shift) = (k * 5 / 8, k * 5 % 8);
        let low = u16::from(bytes[i]);
        let high = bytes.get(i + 1).map_or(0, |b| u16::from(*b));
        ALPHABET[usize::from((low | high << 8) >> shift & 31)]
    })
}

/// Decodes exactly `N` bytes.
///
/// # Errors
/// A wrong length, a character outside the alphabet, or surplus bits that are not zero.
pub fn decode<const N: usize>(text: &[u8]) -> Result<[u8; N], Nix32Error> {
    let mut bytes = [0u8; N];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

/// Decodes exactly `bytes.len()` bytes; same errors as [`decode`], after which the contents of
/// `bytes` are unspecified.
///
/// # Errors
/// See [`decode`].
pub fn decode_into(text: &[u8], bytes: &mut [u8]) -> Result<(), Nix32Error> {
    let want = encoded_len(bytes.len());
    if text.len() != want {
        return Err(Nix32Error::Length { want, got: text.len() });
    }
    bytes.fill(0);
    for (index, character) in text.iter().enumerate() {
        let digit = DIGITS[usize::from(*character)];
        if digit == NO_DIGIT {
            return Err(Nix32Error::Character { index });
        }
        let k = want - 1 - index;
        let (i, shift) = (k * 5 / 8, k * 5 % 8);
        let wide = u16::from(digit) << shift;
        bytes[i] |= wide as u8;
        let carry = (wide >> 8) as u8;
        match bytes.get_mut(i + 1) {
            Some(next) => *next |= carry,
            None if carry != 0 => return Err(Nix32Error::SurplusBits),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn surplus_bits_are_refused() {
        assert_eq!(decode::<1>(b"7z"), Ok([0xff]));
        assert_eq!(decode::<1>(b"8z"), Err(Nix32Error::SurplusBits));
        assert_eq!(decode::<1>(b"zz"), Err(Nix32Error::SurplusBits));
    }

    #[test]
    fn wrong_characters_and_lengths_are_refused() {
        assert_eq!(decode::<1>(b"0e"), Err(Nix32Error::Character { index: 1 }));
        assert_eq!(decode::<1>(b"0Z"), Err(Nix32Error::Character { index: 1 }));
        assert_eq!(decode::<1>(b"000"), Err(Nix32Error::Length { want: 2, got: 3 }));
        assert_eq!(decode::<0>(b""), Ok([]));
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(bytes: [u8; 20], long: [u8; 32]) {
            prop_assert_eq!(decode::<20>(encode(&bytes).as_bytes()), Ok(bytes));
            prop_assert_eq!(decode::<32>(encode(&long).as_bytes()), Ok(long));
        }

        #[test]
        fn text_order_is_byte_order_back_to_front(a: [u8; 20], b: [u8; 20]) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.iter().rev().cmp(b.iter().rev()));
        }

        #[test]
        fn what_decodes_encodes_to_itself(text in "[0-9a-z]{0,60}") {
            let mut bytes = vec![0; text.len() * 5 / 8];
            if decode_into(text.as_bytes(), &mut bytes).is_ok() {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
