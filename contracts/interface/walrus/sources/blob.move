/// A blob registered with Walrus.
module walrus::blob;

use walrus::storage_resource::{Self, Storage};

public struct Blob has key, store {
    id: UID,
    registered_epoch: u32,
    blob_id: u256,
    size: u64,
    encoding_type: u8,
    certified_epoch: Option<u32>,
    storage: Storage,
    deletable: bool,
}

public fun object_id(self: &Blob): ID { object::id(self) }
public fun blob_id(self: &Blob): u256 { self.blob_id }
public fun size(self: &Blob): u64 { self.size }
public fun certified_epoch(self: &Blob): &Option<u32> { &self.certified_epoch }
public fun end_epoch(self: &Blob): u32 { self.storage.end_epoch() }
public fun is_deletable(self: &Blob): bool { self.deletable }

#[test_only]
public fun for_testing(
    blob_id: u256,
    size: u64,
    certified_epoch: Option<u32>,
    end_epoch: u32,
    deletable: bool,
    ctx: &mut TxContext,
): Blob {
    Blob {
        id: object::new(ctx),
        registered_epoch: 0,
        blob_id,
        size,
        encoding_type: 1,
        certified_epoch,
        storage: storage_resource::for_testing(end_epoch, ctx),
        deletable,
    }
}
