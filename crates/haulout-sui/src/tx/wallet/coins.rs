//! The coins that pay for a transaction: SUI for its gas, WAL for what Walrus takes.

use std::collections::BTreeSet;

use sui_sdk_types::{Address, Object, ObjectData, TypeTag};
use sui_transaction_builder::ObjectInput;

use super::Wallet;
use crate::{
    ObjectId,
    chain::SystemView,
    object_id::object_id,
    rpc::Node,
    tx::{
        TxError,
        calls::{coin_type, sui_type},
    },
    walrus_types::{Coin, decode},
};

/// Gas coins put into one transaction: the chain takes 256.
const GAS_COINS_MAX: usize = 64;
/// WAL coins merged in one transaction.
const WAL_COINS_MAX: usize = 128;
/// The most a transaction may cost while it is tried, MIST.
pub(super) const TRY_BUDGET: u64 = 5_000_000_000;

/// A coin of the account, as a transaction names it.
#[derive(Clone)]
pub(crate) struct OwnedCoin {
    pub(crate) input: ObjectInput,
    pub(crate) balance: u64,
}

/// The first of these, largest first, that reach `needs` together, but at most `most`.
fn choose(coins: Vec<OwnedCoin>, needs: u64, most: usize) -> Vec<OwnedCoin> {
    let mut total = 0u64;
    let mut chosen = Vec::new();
    for coin in coins.into_iter().take(most) {
        if total >= needs {
            break;
        }
        total = total.saturating_add(coin.balance);
        chosen.push(coin);
    }
    chosen
}

impl Wallet {
    /// The account's coins of a type, largest first.
    async fn coins(&self, node: &Node, of: &str) -> Result<Vec<OwnedCoin>, TxError> {
        let owned = node.owned(&self.signer.address(), &coin_type(of)).await?;
        let mut coins: Vec<OwnedCoin> = owned
            .iter()
            .filter_map(|object| {
                let value = object.0.as_struct()?;
                let coin: Coin = decode("coin", value.contents()).ok()?;
                Some(OwnedCoin { input: ObjectInput::from(&object.0), balance: coin.balance })
            })
            .collect();
        coins.sort_by_key(|coin| std::cmp::Reverse(coin.balance));
        Ok(coins)
    }

    /// The package of the only kind of coin called WAL that the account has. A coin that a
    /// stranger sent under that name makes it two kinds, and the transaction would fail on
    /// the wrong one.
    async fn only_wal_package(&self, node: &Node) -> Result<ObjectId, TxError> {
        let coin = format!("{}::coin::Coin", Address::TWO);
        let owned = node.owned(&self.signer.address(), &coin).await?;
        let packages: BTreeSet<ObjectId> = owned
            .iter()
            .filter_map(|object| match object.0.as_struct()?.object_type().is_coin()? {
                TypeTag::Struct(tag) if tag.module() == "wal" && tag.name() == "WAL" => {
                    Some(object_id(*tag.address()))
                }
                _ => None,
            })
            .collect();
        match packages.first() {
            Some(package) if packages.len() == 1 => Ok(*package),
            _ => Err(TxError::Build(format!(
                "the account {} has coins of {} kinds called WAL: give wal_package in the \
                 network file",
                self.account(),
                packages.len()
            ))),
        }
    }

    /// The largest SUI coins, until the try budget is covered.
    pub(super) async fn gas_coins(&self, node: &Node) -> Result<Vec<OwnedCoin>, TxError> {
        let coins = self.coins(node, &sui_type()).await?;
        let chosen = choose(coins, TRY_BUDGET, GAS_COINS_MAX);
        if chosen.is_empty() {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "MIST of SUI",
                has: 0,
                needs: 1,
            });
        }
        Ok(chosen)
    }

    pub(super) async fn wal_coins(
        &self,
        node: &Node,
        view: &SystemView,
        needs: u64,
    ) -> Result<Vec<OwnedCoin>, TxError> {
        let package = match self.chain.network().wal_package {
            Some(package) => package,
            None => match linked_wal_package(node, view).await? {
                Some(package) => package,
                None => self.only_wal_package(node).await?,
            },
        };
        let coins = self.coins(node, &format!("{package}::wal::WAL")).await?;
        let chosen = choose(coins, needs, WAL_COINS_MAX);
        let has = chosen.iter().map(|coin| coin.balance).fold(0, u64::saturating_add);
        if has < needs {
            return Err(TxError::Coins {
                account: self.account(),
                coin: "FROST of WAL",
                has,
                needs,
            });
        }
        Ok(chosen)
    }
}

/// The package of the WAL coin: the one that Walrus' package is linked with and that has a
/// module `wal`.
async fn linked_wal_package(node: &Node, view: &SystemView) -> Result<Option<ObjectId>, TxError> {
    let walrus = node.read(view.package).await?;
    let ObjectData::Package(walrus) = walrus.data() else {
        return Err(TxError::Build(format!("{} is not a package", view.package)));
    };
    let linked = &walrus.linkage_table;
    let ids: Vec<ObjectId> = linked.values().map(|info| object_id(info.upgraded_id)).collect();
    let packages = node.read_all(&ids).await?;
    let is_wal = |package: &Option<Object>| match package.as_ref().map(Object::data) {
        Some(ObjectData::Package(package)) => {
            package.modules.keys().any(|module| module.as_str() == "wal")
        }
        _ => false,
    };
    let found = linked.keys().zip(&packages).find(|(_, package)| is_wal(package));
    Ok(found.map(|(original, _)| object_id(*original)))
}
