//! What the gateway counts: relaxed atomics, read only by the control interface.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::api::HttpCounters;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// One atomic per field of [`HttpCounters`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter),* }

        impl Counters {
            /// The values now (each by itself; they are not one instant).
            pub(crate) fn snapshot(&self) -> HttpCounters {
                HttpCounters { $($name: self.$name.get()),* }
            }
        }
    };
}

counters!(
    connections,
    connections_total,
    narinfo_asked,
    narinfo_hit,
    narinfo_miss,
    nar_asked,
    nar_complete,
    nar_cut,
    nar_abandoned,
    nar_miss,
    bytes_to_nix,
    panics,
);

/// A number that several tasks change.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts as one open connection as long as it lives, however that ends.
pub(crate) struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.connections.one();
        counters.connections_total.one();
        Self(counters)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.sub(1);
    }
}
