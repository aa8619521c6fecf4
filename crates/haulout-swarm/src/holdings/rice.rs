//! Rice coding of a sorted set of 32-bit numbers: the gaps between them, in as few bits as random gaps allow.
//!
//! The parameter follows from the number of entries, so a set has exactly one encoding, and the length of that
//! encoding is bounded whatever the entries are: the unary parts together cannot exceed `2^32 >> k`.

use super::HoldingsError;

/// The Rice parameter for `count` entries spread over 2^32: the number of low bits stored as they are.
///
/// The best parameter for geometric gaps of mean `m` is `1 + floor(log2(-ln(phi - 1) * m))`, phi being the golden
/// ratio; the factor is 0.4812.
pub(super) const fn parameter(count: u32) -> u32 {
    if count == 0 {
        return 0;
    }
    let scaled_mean = (4812u64 << 32) / (10_000 * count as u64);
    // 2^32 * 0.4812 has 31 bits, so this is at most 31.
    64 - scaled_mean.leading_zeros()
}

/// Upper bound of [`encode`]'s output for any set of `count` entries, in bytes.
pub(super) const fn bytes_max(count: u32) -> usize {
    let k = parameter(count);
    let bits = count as u64 * (k as u64 + 1) + if count == 0 { 0 } else { (1u64 << 32) >> k };
    bits.div_ceil(8) as usize
}

/// Appends the encoding of `sorted` (strictly ascending) to `out`.
pub(super) fn encode(sorted: &[u32], out: &mut Vec<u8>) {
    let k = parameter(sorted.len() as u32);
    let mut bits = BitWriter { out, pending: 0, used: 0 };
    let mut lowest_next = 0u64;
    for &entry in sorted {
        let gap = u64::from(entry) - lowest_next;
        lowest_next = u64::from(entry) + 1;
        bits.unary(gap >> k);
        bits.put(gap & ((1 << k) - 1), k);
    }
    bits.finish();
}

/// Decodes `count` entries from the front of `bytes`; returns them and the number of bytes they took.
pub(super) fn decode(bytes: &[u8], count: u32) -> Result<(Vec<u32>, usize), HoldingsError> {
    let k = parameter(count);
    // Every entry costs at least k + 1 bits: refuse before allocating for entries that cannot be there.
    let least_bytes = (u64::from(count) * (u64::from(k) + 1)).div_ceil(8);
    if (bytes.len() as u64) < least_bytes {
        return Err(HoldingsError::Truncated);
    }
    let mut bits = BitReader { bytes, position: 0 };
    let mut entries = Vec::with_capacity(count as usize);
    let mut lowest_next = 0u64;
    for _ in 0..count {
        // A quotient beyond this leaves the 32-bit range, so the scan for the end of a unary part is bounded.
        let room = (u64::from(u32::MAX) + 1).saturating_sub(lowest_next);
        let quotient = bits.unary(room >> k)?;
        let gap = quotient << k | bits.take(k)?;
        let entry = u32::try_from(lowest_next + gap).map_err(|_| HoldingsError::OutOfRange)?;
        entries.push(entry);
        lowest_next = u64::from(entry) + 1;
    }
    Ok((entries, bits.finish()?))
}

/// Most significant bit first.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    used: u32,
}

impl BitWriter<'_> {
    /// Appends the low `width` (at most 32) bits of `value`.
    fn put(&mut self, value: u64, width: u32) {
        self.pending = self.pending << width | value;
        self.used += width;
        while self.used >= 8 {
            self.used -= 8;
            self.out.push((self.pending >> self.used) as u8);
            self.pending &= (1 << self.used) - 1;
        }
    }

    /// `count` one bits and a zero bit.
    fn unary(&mut self, mut count: u64) {
        while count >= 32 {
            self.put(u64::from(u32::MAX), 32);
            count -= 32;
        }
        self.put((1 << (count + 1)) - 2, count as u32 + 1);
    }

    fn finish(mut self) {
        if self.used > 0 {
            self.put(0, 8 - self.used);
        }
    }
}

/// Reads what [`BitWriter`] wrote.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits from the start.
    position: usize,
}

impl BitReader<'_> {
    /// The next 57 to 64 bits at the top of a word, zeros beyond the end.
    fn window(&self) -> u64 {
        let at = self.position / 8;
        let word = match self.bytes.get(at..at + 8).and_then(|s| <[u8; 8]>::try_from(s).ok()) {
            Some(eight) => u64::from_be_bytes(eight),
            None => {
                let mut eight = [0u8; 8];
                let rest = self.bytes.get(at..).unwrap_or(&[]);
                let len = rest.len().min(8);
                eight[..len].copy_from_slice(&rest[..len]);
                u64::from_be_bytes(eight)
            }
        };
        word << (self.position % 8)
    }

    fn advance(&mut self, bits: usize) -> Result<(), HoldingsError> {
        self.position += bits;
        if self.position > self.bytes.len() * 8 {
            return Err(HoldingsError::Truncated);
        }
        Ok(())
    }

    fn take(&mut self, width: u32) -> Result<u64, HoldingsError> {
        if width == 0 {
            return Ok(0);
        }
        let value = self.window() >> (64 - width);
        self.advance(width as usize)?;
        Ok(value)
    }

    /// Length of a run of ones, which may be at most `most`.
    fn unary(&mut self, most: u64) -> Result<u64, HoldingsError> {
        let mut count = 0u64;
        loop {
            // 32 at a time, because the window holds at least 57 bits.
            let ones = self.window().leading_ones().min(32);
            count += u64::from(ones);
            if count > most {
                return Err(HoldingsError::OutOfRange);
            }
            if ones < 32 {
                self.advance(ones as usize + 1)?;
                return Ok(count);
            }
            self.advance(32)?;
        }
    }

    /// Checks the padding and returns the number of bytes read.
    fn finish(self) -> Result<usize, HoldingsError> {
        let spare = (8 - self.position % 8) % 8;
        if spare > 0 && self.window() >> (64 - spare) != 0 {
            return Err(HoldingsError::Padding);
        }
        Ok(self.position.div_ceil(8))
    }
}
