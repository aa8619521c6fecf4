//! Walrus' RedStuff erasure code: slivers, metadata, blob ids, quilts. Pure.
