/// The shared clock at 0x6.
module sui::clock;

public struct Clock has key { id: UID, timestamp_ms: u64 }

public fun timestamp_ms(clock: &Clock): u64 { clock.timestamp_ms }

#[test_only]
public fun for_testing(timestamp_ms: u64, ctx: &mut TxContext): Clock {
    Clock { id: object::new(ctx), timestamp_ms }
}
