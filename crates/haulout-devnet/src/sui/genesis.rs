//! The beginning of a devnet: framework, clock, Walrus, and accounts with coins.

use haulout_walrus::committee::Committee;
use sui_sdk_types::{Address, MoveStruct, ObjectData, Owner, StructTag, TypeTag, hash::Hasher};

use super::{
    model::{
        Chain, Genesis, Kind, Modules, Packages, STATE_VERSION, Validators, genesis_package,
        state_contents,
    },
    names::{CLOCK, DENY_LIST, SYSTEM_STATE, encode, field_tag, tag},
    walrus::{self, WalrusIds, WalrusParams},
};

/// What a devnet is made of. Two of the same are the same, to the last id and key.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Everything derives from it.
    pub seed: [u8; 32],
    /// Number of validators, 1 to 150.
    pub validators: usize,
    /// Whether checkpoints commit to the objects they wrote (OCS proofs).
    pub artifacts: bool,
    /// Reference gas price in MIST.
    pub gas_price: u64,
    /// Terms of Walrus.
    pub walrus: WalrusParams,
    /// Accounts that have SUI and WAL from the start.
    pub accounts: Vec<Address>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: [0; 32],
            validators: 4,
            artifacts: true,
            gas_price: 1_000,
            walrus: WalrusParams::default(),
            accounts: vec![],
        }
    }
}

/// Coins of each kind that an account gets: several, so that transactions need not wait for each other.
const COINS: u64 = 4;
/// MIST in each SUI coin.
const SUI_COIN: u64 = 1_000 * 1_000_000_000;
/// FROST in each WAL coin.
const WAL_COIN: u64 = 100_000 * 1_000_000_000;

/// Makes the chain. `operator` has the storage nodes' caps.
pub(crate) fn chain(
    setup: &Setup,
    committee: &Committee,
    operator: Address,
    now_ms: u64,
) -> (Chain, WalrusIds) {
    let mut packages = Packages::default();
    let mut objects = framework(setup, &mut packages, now_ms);
    let (ids, walrus) =
        walrus::genesis(&setup.seed, committee, &setup.walrus, operator, now_ms, &mut packages);
    objects.extend(walrus);
    for account in setup.accounts.iter().chain([&operator]) {
        objects.extend(coins(&setup.seed, *account, "SUI", StructTag::gas_coin(), SUI_COIN));
        let wal = walrus::wal_coin_tag(ids.wal);
        objects.extend(coins(&setup.seed, *account, "WAL", wal, WAL_COIN));
    }
    let chain = Chain::new(Genesis {
        seed: setup.seed,
        validators: setup.validators,
        artifacts: setup.artifacts,
        gas_price: setup.gas_price,
        objects,
        packages,
        now_ms,
    });
    (chain, ids)
}

fn object(
    type_: StructTag,
    public: bool,
    contents: Vec<u8>,
    owner: Owner,
) -> Option<(ObjectData, Owner)> {
    MoveStruct::new(type_, public, 1, contents).map(|data| (ObjectData::Struct(data), owner))
}

fn framework(setup: &Setup, packages: &mut Packages, now_ms: u64) -> Vec<(ObjectData, Owner)> {
    const SUI: Modules = &[
        ("balance", &["Balance"]),
        ("clock", &["Clock"]),
        ("coin", &["Coin"]),
        ("dynamic_field", &["Field"]),
        ("object", &["ID", "UID"]),
        ("package", &["UpgradeCap"]),
        ("sui", &["SUI"]),
        ("transfer", &[]),
    ];
    let three = Address::from_static("0x3");
    let one = Address::from_static("0x1");
    let all: [(Address, Modules); 3] = [
        (one, &[("option", &["Option"]), ("string", &["String"])]),
        (Address::TWO, SUI),
        (three, &[("sui_system", &["SuiSystemState"])]),
    ];
    let mut objects = Vec::new();
    for (id, structs) in all {
        packages.insert(id, Kind::Framework, id);
        let package = genesis_package(id, id, 1, structs);
        objects.push((ObjectData::Package(package), Owner::Immutable));
    }
    let shared = Owner::Shared(1);
    let clock = encode(&(CLOCK, now_ms));
    objects.extend(object(tag(Address::TWO, "clock", "Clock"), false, clock, shared));
    let state = encode(&(SYSTEM_STATE, STATE_VERSION));
    objects.extend(object(tag(three, "sui_system", "SuiSystemState"), false, state, shared));
    let inner = tag(three, "sui_system_state_inner", "SuiSystemStateInnerV2");
    let field = field_tag(TypeTag::U64, inner.into());
    let validators = Validators::generate(&setup.seed, 0, setup.validators);
    let state = state_contents(validators.committee(), setup.gas_price, now_ms);
    objects.extend(object(field, false, state, Owner::Object(SYSTEM_STATE)));
    // A bag: its id and its size.
    let deny_list = encode(&(DENY_LIST, Address::ZERO, 0u64));
    objects.extend(object(tag(Address::TWO, "deny_list", "DenyList"), false, deny_list, shared));
    objects
}

fn coins(
    seed: &[u8; 32],
    owner: Address,
    kind: &'static str,
    type_: StructTag,
    value: u64,
) -> impl Iterator<Item = (ObjectData, Owner)> {
    let seed = *seed;
    (0..COINS).filter_map(move |number| {
        let mut hasher = Hasher::new();
        hasher.update(b"haulout devnet coin");
        hasher.update(seed);
        hasher.update(owner);
        hasher.update(kind);
        hasher.update(number.to_le_bytes());
        let id = Address::new(hasher.finalize().into_inner());
        object(type_.clone(), true, encode(&(id, value)), Owner::Address(owner))
    })
}
