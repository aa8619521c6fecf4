//! Sui's system state: the object that names the validators of an epoch.

use serde::Serialize;
use sui_sdk_types::{Address, TypeTag, ValidatorCommittee, ValidatorCommitteeMember};

use super::system::PROTOCOL_VERSION;
use crate::sui::names::{SYSTEM_STATE, encode};

/// Version of the state: key of its dynamic field.
pub(crate) const STATE_VERSION: u64 = 2;

/// The dynamic field of `0x5` with the state.
pub(crate) fn state_id() -> Address {
    SYSTEM_STATE.derive_dynamic_child_id(&TypeTag::U64, &STATE_VERSION.to_le_bytes())
}

#[derive(Clone, Copy, Serialize)]
struct Table {
    id: Address,
    size: u64,
}

#[derive(Serialize)]
struct Metadata {
    sui_address: Address,
    protocol_pubkey_bytes: Vec<u8>,
    network_and_worker_pubkeys_and_possession: [Vec<u8>; 3],
    name_description_urls_and_addresses: [String; 8],
    next_epoch: [Option<Vec<u8>>; 8],
    extra_fields: Table,
}

#[derive(Serialize)]
struct Pool {
    id: Address,
    activation_epoch: Option<u64>,
    deactivation_epoch: Option<u64>,
    sui_balance: u64,
    rewards_pool: u64,
    pool_token_balance: u64,
    exchange_rates: Table,
    pending: [u64; 3],
    extra_fields: Table,
}

#[derive(Serialize)]
struct Validator {
    metadata: Metadata,
    voting_power: u64,
    operation_cap_id: Address,
    gas_price: u64,
    staking_pool: Pool,
    commission_rate: u64,
    next_epoch_stake: u64,
    next_epoch_gas_price: u64,
    next_epoch_commission_rate: u64,
    extra_fields: Table,
}

#[derive(Serialize)]
struct ValidatorSet {
    total_stake: u64,
    active_validators: Vec<Validator>,
    pending_active_validators: Table,
    pending_removals: Vec<u64>,
    staking_pool_mappings: Table,
    inactive_validators: Table,
    validator_candidates: Table,
    at_risk_validators: Vec<(Address, u64)>,
    extra_fields: Table,
}

/// `0x3::sui_system_state_inner::SuiSystemStateInnerV2`.
#[derive(Serialize)]
struct State {
    epoch: u64,
    protocol_version: u64,
    system_state_version: u64,
    validators: ValidatorSet,
    storage_fund: [u64; 2],
    parameters: ([u64; 8], Table),
    reference_gas_price: u64,
    validator_report_records: Vec<(Address, Vec<Address>)>,
    stake_subsidy: ([u64; 4], u16, Table),
    safe_mode: bool,
    safe_mode_amounts: [u64; 4],
    epoch_start_timestamp_ms: u64,
    extra_fields: Table,
}

/// Contents of the field in an epoch with this committee.
pub(crate) fn state_contents(
    committee: &ValidatorCommittee,
    gas_price: u64,
    epoch_start_timestamp_ms: u64,
) -> Vec<u8> {
    let table = Table { id: Address::ZERO, size: 0 };
    let members = committee.members.iter().enumerate();
    let state = State {
        epoch: committee.epoch,
        protocol_version: PROTOCOL_VERSION,
        system_state_version: STATE_VERSION,
        validators: ValidatorSet {
            total_stake: committee.members.iter().map(|member| member.stake).sum(),
            active_validators: members.map(|(i, m)| validator(i, m, gas_price)).collect(),
            pending_active_validators: table,
            pending_removals: vec![],
            staking_pool_mappings: Table { size: committee.members.len() as u64, ..table },
            inactive_validators: table,
            validator_candidates: table,
            at_risk_validators: vec![],
            extra_fields: table,
        },
        storage_fund: [0, 0],
        parameters: ([24 * 3_600 * 1_000, 0, 4, 150, 0, 0, 0, 7], table),
        reference_gas_price: gas_price,
        validator_report_records: vec![],
        stake_subsidy: ([0, 0, 0, 10], 1_000, table),
        safe_mode: false,
        safe_mode_amounts: [0; 4],
        epoch_start_timestamp_ms,
        extra_fields: table,
    };
    encode(&(state_id(), STATE_VERSION, state))
}

fn validator(number: usize, member: &ValidatorCommitteeMember, gas_price: u64) -> Validator {
    let table = Table { id: Address::ZERO, size: 0 };
    let mut id = [0x5a; 32];
    id[24..].copy_from_slice(&(number as u64).to_be_bytes());
    let id = Address::new(id);
    let address = || format!("/ip4/127.0.0.1/udp/{}", 8_080 + number);
    Validator {
        metadata: Metadata {
            sui_address: id,
            protocol_pubkey_bytes: member.public_key.as_bytes().to_vec(),
            network_and_worker_pubkeys_and_possession: [vec![0; 32], vec![0; 32], vec![0; 48]],
            name_description_urls_and_addresses: [
                format!("validator-{number}"),
                String::new(),
                String::new(),
                String::new(),
                address(),
                address(),
                address(),
                address(),
            ],
            next_epoch: Default::default(),
            extra_fields: table,
        },
        voting_power: member.stake,
        operation_cap_id: id,
        gas_price,
        staking_pool: Pool {
            id,
            activation_epoch: Some(0),
            deactivation_epoch: None,
            sui_balance: member.stake,
            rewards_pool: 0,
            pool_token_balance: member.stake,
            exchange_rates: table,
            pending: [0; 3],
            extra_fields: table,
        },
        commission_rate: 200,
        next_epoch_stake: member.stake,
        next_epoch_gas_price: gas_price,
        next_epoch_commission_rate: 200,
        extra_fields: table,
    }
}
