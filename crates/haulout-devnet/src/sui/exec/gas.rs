//! Gas, by a plain formula.
//!
//! * Computation: 1,000 units for each Move call or publication, 1,000 at least (the smallest
//!   bucket of Sui), times the gas price. A recorded `reserve_space` + `register_blob` cost 2,000 too.
//! * Storage, as Sui: (contents + type + 89 bytes) × 7,600 MIST for every object written; 99 % of
//!   an object's old deposit comes back when it is written again or deleted.

use sui_sdk_types::{Command, GasCostSummary, MovePackage, MoveStruct, ObjectData};

use crate::sui::names::{encode, uleb};

/// MIST per metered byte: 100 units of 76 MIST.
const MIST_PER_BYTE: u64 = 7_600;

/// Metered for owner, digest and rebate, and for version and transferability.
const OVERHEAD_BYTES: u64 = 80 + 9;

/// Units of a transaction without a call, or that failed.
pub(crate) const FAILED_UNITS: u64 = 1_000;

/// Computation units of these commands.
pub(crate) fn units(commands: &[Command]) -> u64 {
    let heavy = |command: &&Command| {
        matches!(command, Command::MoveCall(_) | Command::Publish(_) | Command::Upgrade(_))
    };
    let calls = commands.iter().filter(heavy).count() as u64;
    calls.max(1) * 1_000
}

/// The deposit for an object, in MIST.
pub(crate) fn metered_price(data: &ObjectData) -> u64 {
    let bytes = match data {
        ObjectData::Struct(data) => struct_bytes(data),
        ObjectData::Package(package) => package_bytes(package),
    };
    bytes * MIST_PER_BYTE
}

fn struct_bytes(data: &MoveStruct) -> u64 {
    let contents = data.contents().len() as u64;
    // BCS: type, transferability (1), version (8), length of the contents, contents.
    let total = encode(data).len() as u64;
    let type_ = total - 9 - uleb(contents).len() as u64 - contents;
    contents + type_ + OVERHEAD_BYTES
}

fn package_bytes(package: &MovePackage) -> u64 {
    let modules = package.modules.iter().map(|(name, code)| name.as_str().len() + code.len());
    let origins = package
        .type_origin_table
        .iter()
        .map(|origin| origin.module_name.as_str().len() + origin.struct_name.as_str().len() + 32);
    let linkage = package.linkage_table.len() * (32 + 32 + 8);
    (modules.sum::<usize>() + origins.sum::<usize>() + linkage) as u64 + 8 + 80
}

/// Splits the old deposits and sums up.
pub(crate) fn summary(computation_cost: u64, storage_cost: u64, old: u64) -> GasCostSummary {
    let storage_rebate = (old * 9_900 + 5_000) / 10_000;
    let non_refundable_storage_fee = old - storage_rebate;
    GasCostSummary { computation_cost, storage_cost, storage_rebate, non_refundable_storage_fee }
}

/// What has to fit into the budget.
pub(crate) fn needed(gas: &GasCostSummary) -> u64 {
    gas.computation_cost + gas.storage_cost.saturating_sub(gas.storage_rebate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sui_sdk_types::StructTag;

    #[test]
    fn a_coin_costs_what_sui_charges() {
        let coin = MoveStruct::new(StructTag::gas_coin(), true, 5, vec![0; 40]).unwrap();
        assert_eq!(metered_price(&ObjectData::Struct(coin)), 988_000);
    }

    #[test]
    fn the_recorded_split_of_old_deposits() {
        let gas = summary(2_000_000, 21_842_400, 19_667_736 + 198_664);
        assert_eq!((gas.storage_rebate, gas.non_refundable_storage_fee), (19_667_736, 198_664));
        assert_eq!(needed(&gas), 4_174_664);
    }
}
