//! `nix-cache-info`: what a cache says about itself.

use haulout_nix::StoreDir;

/// Longest `nix-cache-info` that is read, in bytes; real ones have about 60.
pub const CACHE_INFO_BYTES_MAX: usize = 4096;

/// The name of the file.
pub const CACHE_INFO: &str = "nix-cache-info";

/// What a cache says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheInfo {
    /// The store its paths belong to, when it says so.
    pub store_dir: Option<String>,
    /// Lower is asked first; Nix takes 0 when a cache states none.
    pub priority: i64,
    /// It says that it is a haulout agent.
    pub agent: bool,
}

impl CacheInfo {
    /// Reads the text as Nix does: `Key: value`, unknown keys and lines without a colon are passed
    /// over. A priority that is no number is passed over too (Nix dies of it).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match key {
                "HauloutAgent" => info.agent = value.trim() == "1",
                "StoreDir" => info.store_dir = Some(value.trim().to_owned()),
                "Priority" => info.priority = value.trim().parse().unwrap_or(info.priority),
                _ => {}
            }
        }
        info
    }

    /// Whether its paths are those of this store.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn check(&self, ours: &StoreDir) -> Result<(), String> {
        match &self.store_dir {
            Some(theirs) if theirs != ours.as_str() => {
                let theirs: String =
                    theirs.chars().take(100).flat_map(char::escape_debug).collect();
                Err(format!("it is for the store {theirs}, this machine's is {ours}"))
            }
            _ => Ok(()),
        }
    }

    /// The text for a cache of our own.
    #[must_use]
    pub fn text(store: &StoreDir, priority: i64) -> String {
        format!("StoreDir: {store}\nWantMassQuery: 1\nPriority: {priority}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_caches_say() {
        let ours = StoreDir::default();
        let info = CacheInfo::parse("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
        assert_eq!((info.priority, info.check(&ours)), (40, Ok(())));
        assert_eq!(CacheInfo::parse(&CacheInfo::text(&ours, 40)), info);
        assert_eq!(CacheInfo::parse(""), CacheInfo::default());
        let odd = CacheInfo::parse("no colon\nPriority:  7 \r\nPriority: high\nX: y");
        assert_eq!(odd.priority, 7);
        let other = CacheInfo::parse("StoreDir: /gnu/store\n");
        assert!(other.check(&ours).unwrap_err().contains("/gnu/store"));
    }
}
