//! Recovery symbols, decoding symbols and inconsistency proofs: what a node answers
//! when a sliver is to be rebuilt. No proof may hold against an honest blob.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use redstuff::{
    AnyInconsistencyProof, DecodingSymbols, EitherDecodingSymbol, EncodedBlob, Primary,
    RecoverySymbols, Secondary, ShardCount, SliverIndex, bcs::Wire, recover_unproven,
};

fn encoded() -> &'static EncodedBlob {
    static ENCODED: OnceLock<EncodedBlob> = OnceLock::new();
    ENCODED.get_or_init(|| ShardCount::new(7).unwrap().encode(vec![9; 50]).unwrap())
}

fuzz_target!(|bytes: &[u8]| {
    let metadata = encoded().metadata();
    if let Ok(symbols) = RecoverySymbols::from_bcs(bytes) {
        assert_eq!(symbols.to_bcs(), bytes);
        for symbol in symbols.0 {
            if let Some((target, symbol)) = symbol.clone().into_typed::<Primary>() {
                let _ = symbol.verify(metadata, target);
            }
            if let Some((target, symbol)) = symbol.into_typed::<Secondary>() {
                let _ = symbol.verify(metadata, target);
            }
        }
    }
    if let Ok(symbols) = DecodingSymbols::from_bcs(bytes) {
        assert_eq!(symbols.to_bcs(), bytes);
        for (target, symbols) in symbols.0 {
            let primary = symbols.into_iter().filter_map(|symbol| match symbol {
                EitherDecodingSymbol::Primary(symbol) => Some(symbol),
                EitherDecodingSymbol::Secondary(_) => None,
            });
            let primary: Vec<_> = primary.collect();
            let _ = recover_unproven(metadata, SliverIndex::<Primary>::new(target), &primary);
        }
    }
    if let Ok(proof) = AnyInconsistencyProof::from_bcs(bytes) {
        assert_eq!(proof.to_bcs(), bytes);
        assert!(proof.verify(metadata).is_err());
    }
});
