//! One memory budget for all transfers of the agent.
//!
//! A transfer reserves all it will ever hold before its first byte is asked
//! for. So no transfer can wait in the middle for memory another one holds,
//! and the sum stays below [`BUDGET_BYTES`] whatever the sizes of the NARs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all transfers together may hold in memory, in bytes. Nix opens at
/// most 25 connections, so nearly each gets [`WINDOW_MIN`] at the same time.
pub const BUDGET_BYTES: u64 = 96 << 20;
/// The window a large NAR gets while memory is plentiful, in bytes.
pub const WINDOW_MAX: u64 = 12 << 20;
/// The least window a large NAR runs with, in bytes.
pub const WINDOW_MIN: u64 = 4 << 20;

/// The accounting unit. A semaphore counts `u32`s at a time; kibibytes let
/// it hold any budget.
const UNIT: u64 = 1024;

/// The agent's transfer memory.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u64,
}

/// A reserved part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    bytes: u64,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// How much may be held, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let units = usize::try_from(total / UNIT)
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(units)), total }
    }

    /// Reserves `want` bytes if they are free with as much again to spare,
    /// else `least` bytes, waiting for them up to `patience`. First come,
    /// first served. `None` when the wait was in vain or `least` exceeds the
    /// whole budget.
    pub async fn reserve(&self, want: u64, least: u64, patience: Duration) -> Option<Lease> {
        let least = least.min(want);
        if self.free() >= want.saturating_mul(2)
            && let Some(lease) = self.grab(want)
        {
            return Some(lease);
        }
        if least > self.total {
            return None;
        }
        let wait = Arc::clone(&self.free).acquire_many_owned(units(least)?);
        let permit = tokio::time::timeout(patience, wait).await.ok()?.ok()?;
        Some(Lease { bytes: least, _permit: permit })
    }

    /// What is not reserved, in bytes.
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT
    }

    /// What is reserved, in bytes.
    pub fn in_use(&self) -> u64 {
        self.total.saturating_sub(self.free())
    }

    fn grab(&self, bytes: u64) -> Option<Lease> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(units(bytes)?).ok()?;
        Some(Lease { bytes, _permit: permit })
    }
}

fn units(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn generous_while_there_is_plenty_then_frugal_then_waiting() {
        let budget = Budget::new(20 * MIB);
        let first = budget.reserve(8 * MIB, 3 * MIB, Duration::from_secs(1)).await.unwrap();
        assert_eq!(first.bytes(), 8 * MIB);
        let second = budget.reserve(8 * MIB, 3 * MIB, Duration::from_secs(1)).await.unwrap();
        assert_eq!(second.bytes(), 3 * MIB, "less than twice the wish was free");
        let mut rest = Vec::new();
        while budget.free() >= 3 * MIB {
            rest.push(budget.reserve(8 * MIB, 3 * MIB, Duration::from_secs(1)).await.unwrap());
        }
        assert!(budget.reserve(8 * MIB, 3 * MIB, Duration::from_secs(1)).await.is_none());
        drop(first);
        assert!(budget.reserve(8 * MIB, 3 * MIB, Duration::from_secs(1)).await.is_some());
        drop((second, rest));
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn what_never_fits_is_refused_at_once() {
        let budget = Budget::new(MIB);
        assert!(budget.reserve(9 * MIB, 2 * MIB, Duration::from_secs(3600)).await.is_none());
    }
}
