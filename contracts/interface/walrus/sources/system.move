/// Walrus' shared system object. On chain the epoch lies in a dynamic field; this stand-in, which
/// only tests ever make, keeps it at hand.
module walrus::system;

public struct System has key { id: UID, version: u64, epoch: u32 }

public fun epoch(self: &System): u32 { self.epoch }

#[test_only]
public fun for_testing(epoch: u32, ctx: &mut TxContext): System {
    System { id: object::new(ctx), version: 3, epoch }
}
