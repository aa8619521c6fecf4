/// A reservation of space.
module walrus::storage_resource;

public struct Storage has key, store {
    id: UID,
    start_epoch: u32,
    end_epoch: u32,
    storage_size: u64,
}

public fun end_epoch(self: &Storage): u32 { self.end_epoch }

#[test_only]
public fun for_testing(end_epoch: u32, ctx: &mut TxContext): Storage {
    Storage { id: object::new(ctx), start_epoch: 0, end_epoch, storage_size: 66_034_000 }
}
