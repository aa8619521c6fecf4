/// The transaction at hand.
module sui::tx_context;

public struct TxContext has drop {
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
}

public fun fresh_object_address(_: &mut TxContext): address { fresh_id() }

native fun fresh_id(): address;

#[test_only]
native fun replace(
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
    rgp: u64,
    gas_price: u64,
    gas_budget: u64,
    sponsor: vector<address>,
);

#[test_only]
/// The context of a transaction sent by `sender`.
public fun for_testing(sender: address): TxContext {
    let tx_hash = x"4841554c4f55540000000000000000000000000000000000000000000000007e";
    replace(sender, tx_hash, 0, 0, 0, 0, 0, 0, vector[]);
    TxContext { sender, tx_hash, epoch: 0, epoch_timestamp_ms: 0, ids_created: 0 }
}
