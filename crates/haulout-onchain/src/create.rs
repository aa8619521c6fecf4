//! A new archive.

use haulout_archive::contract;
use haulout_depot::{DepotError, Kind};
use haulout_sui::{
    ObjectId,
    object_id::object_id,
    tx::{Request, TxError, Wallet},
};

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The package with the contract.
    pub package: ObjectId,
    /// The archive.
    pub archive: ObjectId,
    /// Says who may publish.
    pub owner_cap: ObjectId,
    /// Publishes.
    pub publisher_cap: ObjectId,
}

/// Makes an archive in the name of a wallet. Without a `package` the contract is published first, so that
/// nobody can ever change it.
///
/// # Errors
/// A transaction that was not made; asking again goes on with what was.
pub async fn create(
    wallet: &Wallet,
    package: Option<ObjectId>,
    store_dir: &str,
    name: &str,
) -> Result<Created, DepotError> {
    let package = match package {
        Some(package) => package,
        None => publish_contract(wallet).await?,
    };
    let request = Request {
        purpose: format!("create archive {name:?} for {store_dir} with package {package}"),
        wal: 0,
        objects: Vec::new(),
        build: &|ptb| ptb.archive_create(package, store_dir, name),
    };
    let outcome = wallet.run(&request).await.map_err(failed)?;
    let of = |name| {
        let object = outcome.created_of("archive", name).next();
        object.map(|object| object_id(object.object_id())).ok_or_else(|| {
            let message = format!("transaction {} made no {name}", outcome.digest);
            DepotError::new(Kind::Refused, message)
        })
    };
    Ok(Created {
        package,
        archive: of("Archive")?,
        owner_cap: of("OwnerCap")?,
        publisher_cap: of("PublisherCap")?,
    })
}

async fn publish_contract(wallet: &Wallet) -> Result<ObjectId, DepotError> {
    let dependencies = wallet.walrus_dependencies().await.map_err(failed)?;
    let view = wallet.chain().system(false).await.map_err(|error| failed(error.into()))?;
    let module = contract::module_for(&view.type_package.0);
    let request = Request {
        purpose: format!("publish the archive contract for Walrus {}", view.type_package),
        wal: 0,
        objects: Vec::new(),
        build: &|ptb| ptb.publish(vec![module.clone()], &dependencies, true),
    };
    let outcome = wallet.run(&request).await.map_err(failed)?;
    outcome.package().ok_or_else(|| {
        DepotError::new(Kind::Refused, format!("transaction {} made no package", outcome.digest))
    })
}

/// A transaction's failure as this crate's.
pub(crate) fn failed(error: TxError) -> DepotError {
    use haulout_sui::rpc::Fault;
    let kind = match error.fault() {
        Fault::Unavailable => Kind::Unavailable,
        Fault::NotFound => Kind::Missing,
        Fault::Untrusted => Kind::Corrupt,
        Fault::Refused | Fault::Unsupported => Kind::Refused,
    };
    let what = match error.abort_code(contract::MODULE_NAME).and_then(contract::explain_abort) {
        Some(why) => format!("the archive's contract refuses: {why}"),
        None => "a transaction was not made".to_owned(),
    };
    DepotError::new(kind, what).because(error)
}
