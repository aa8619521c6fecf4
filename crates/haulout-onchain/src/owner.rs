//! What only an archive's owner can do: say who publishes, and end its changes for good.

use crate::{ArchiveFile, create::failed};
use haulout_depot::{DepotError, Kind};
use haulout_sui::{
    ObjectId,
    object_id::object_id,
    tx::{Ptb, Request, TxError, Wallet},
};

/// What the owner wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new publisher's cap for this account.
    Add {
        /// The account.
        to: ObjectId,
    },
    /// This publisher's cap is worthless from here on.
    Revoke {
        /// The cap.
        cap: ObjectId,
    },
    /// Both, in one transaction.
    Replace {
        /// The old cap.
        cap: ObjectId,
        /// Who gets the new one.
        to: ObjectId,
    },
    /// No change will ever follow; the owner's cap is used up.
    Freeze,
}

impl Change {
    fn purpose(self, archive: ObjectId) -> String {
        match self {
            Self::Add { to } => format!("let {to} publish to archive {archive}"),
            Self::Revoke { cap } => format!("revoke publisher's cap {cap} of archive {archive}"),
            Self::Replace { cap, to } => {
                format!("replace publisher's cap {cap} of archive {archive} by one for {to}")
            }
            Self::Freeze => format!("freeze archive {archive} for good"),
        }
    }

    fn put(self, ptb: &mut Ptb<'_>, package: ObjectId) -> Result<(), TxError> {
        // Places in the request: the archive, the owner's cap.
        let places = (0, 1);
        match self {
            Self::Add { to } => ptb.archive_add_publisher(package, places, to),
            Self::Revoke { cap } => ptb.archive_revoke(package, places, cap),
            Self::Replace { cap, to } => {
                ptb.archive_revoke(package, places, cap)?;
                ptb.archive_add_publisher(package, places, to)
            }
            Self::Freeze => ptb.archive_freeze(package, places),
        }
    }
}

/// Makes a change in the owner's name; the new publisher's cap, if one was made.
///
/// # Errors
/// The file has no owner's cap, or the transaction was not made.
pub async fn change(
    wallet: &Wallet,
    file: &ArchiveFile,
    change: Change,
) -> Result<Option<ObjectId>, DepotError> {
    let owner = file.owner_cap.ok_or_else(|| {
        DepotError::new(
            Kind::Refused,
            "the archive file has no owner_cap: only the owner can do that",
        )
    })?;
    let package = file.package;
    let request = Request {
        purpose: change.purpose(file.archive),
        wal: 0,
        objects: vec![(file.archive, true), (owner, false)],
        build: &|ptb| change.put(ptb, package),
    };
    let outcome = wallet.run(&request).await.map_err(failed)?;
    let mut caps = outcome.created_of("archive", "PublisherCap");
    Ok(caps.next().map(|cap| object_id(cap.object_id())))
}
