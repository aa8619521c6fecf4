//! How many bytes neighbours have spared this machine, over all runs of the agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use haulout_gateway::api::SavedReport;
use haulout_resolver::Resolver;
use serde::{Deserialize, Serialize};

/// How often the sum is brought up to date.
const EVERY: Duration = Duration::from_secs(2);
/// How often it is written, if it changed: a kill loses what came since.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Seconds of a day.
const DAY: u64 = 86_400;
/// The file, in the state directory.
const FILE: &str = "savings.json";
/// It is a few numbers.
const FILE_BYTES_MAX: u64 = 4096;

/// What is kept on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Sums {
    /// Days since 1970 (UTC) that `today_bytes` is about.
    day: u64,
    today_bytes: u64,
    total_bytes: u64,
    relayed_today_bytes: u64,
    relayed_total_bytes: u64,
}

impl Sums {
    /// Adds bytes of neighbours' own, and bytes that they relayed, on `day`. A clock that was set back adds to the day it had.
    fn add(&mut self, day: u64, bytes: u64, relayed: u64) {
        if day > self.day {
            self.day = day;
            (self.today_bytes, self.relayed_today_bytes) = (0, 0);
        }
        for (sum, more) in [
            (&mut self.today_bytes, bytes),
            (&mut self.total_bytes, bytes),
            (&mut self.relayed_today_bytes, relayed),
            (&mut self.relayed_total_bytes, relayed),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The sums and where they are kept.
pub(super) struct Savings {
    sums: Sums,
    /// Of this run's counters, what is in the sums.
    counted: (u64, u64),
    /// What is in the file, and since when.
    written: (Sums, Instant),
    path: PathBuf,
}

impl Savings {
    /// Reads what earlier runs saved; what cannot be read counts as nothing.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let read = std::fs::metadata(&path)
            .ok()
            .filter(|found| found.len() <= FILE_BYTES_MAX)
            .and_then(|_| std::fs::read(&path).ok());
        let sums = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { sums, counted: (0, 0), written: (sums, Instant::now()), path }
    }

    /// Keeps the sums up to date; never ends.
    pub(super) async fn run(&mut self, resolver: &Resolver) {
        loop {
            self.update(resolver);
            if self.written.1.elapsed() >= WRITTEN_EVERY {
                self.save();
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Takes over what came since the last time, and tells the resolver.
    pub(super) fn update(&mut self, resolver: &Resolver) {
        let stats = resolver.stats();
        let now = (stats.bytes_in.get(), stats.bytes_relayed_in.get());
        let (bytes, relayed) =
            (now.0.saturating_sub(self.counted.0), now.1.saturating_sub(self.counted.1));
        self.sums.add(today(), bytes, relayed);
        self.counted = now;
        let saved = SavedReport {
            today_bytes: self.sums.today_bytes,
            total_bytes: self.sums.total_bytes,
            relayed_today_bytes: self.sums.relayed_today_bytes,
            relayed_total_bytes: self.sums.relayed_total_bytes,
        };
        resolver.change_about(|about| about.saved = saved);
    }

    /// Writes the sums down, if they changed.
    pub(super) fn save(&mut self) {
        // A new day alone is no reason to write.
        let total = |sums: &Sums| (sums.total_bytes, sums.relayed_total_bytes);
        if total(&self.sums) != total(&self.written.0)
            && let Err(error) = self.write()
        {
            tracing::debug!(%error, "the sum of what was saved was not written");
        }
        self.written = (self.sums, Instant::now());
    }

    fn write(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, &self.sums)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_with_nothing_and_the_total_goes_on() {
        let mut sums = Sums::default();
        sums.add(10, 5, 100);
        sums.add(10, 7, 10);
        assert_eq!((sums.today_bytes, sums.total_bytes), (12, 12));
        sums.add(11, 1, 1);
        assert_eq!((sums.today_bytes, sums.total_bytes), (1, 13));
        assert_eq!((sums.relayed_today_bytes, sums.relayed_total_bytes), (1, 111));
        sums.add(9, 2, 0);
        assert_eq!((sums.day, sums.today_bytes, sums.total_bytes), (11, 3, 15));
    }

    #[test]
    fn it_is_there_again_and_rubbish_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut savings = Savings::load(dir.path());
        savings.sums.add(3, 42, 7);
        savings.write().unwrap();
        assert_eq!(Savings::load(dir.path()).sums, savings.sums);
        // As a version before wrote it, and as a later one may: what is known is taken, and counts on.
        std::fs::write(dir.path().join(FILE), r#"{"day":3,"today_bytes":1,"total_bytes":9}"#)
            .unwrap();
        assert_eq!(Savings::load(dir.path()).sums.total_bytes, 9);
        std::fs::write(dir.path().join(FILE), r#"{"day":3,"total_bytes":9,"by_walrus":[1]}"#)
            .unwrap();
        assert_eq!(Savings::load(dir.path()).sums.total_bytes, 9);
        std::fs::write(dir.path().join(FILE), "{\"day\": -1}").unwrap();
        assert_eq!(Savings::load(dir.path()).sums, Sums::default());
    }
}
