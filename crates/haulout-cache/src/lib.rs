//! What an agent keeps on disk: narinfos, misses, BLAKE3 trees, NARs; quota and crash safety.
