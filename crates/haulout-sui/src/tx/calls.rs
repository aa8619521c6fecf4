//! The Move calls: Walrus' and the archive contract's, as commands of one transaction.

use haulout_walrus::Registration;
use redstuff::messages::ConfirmationCertificate;
use sui_sdk_types::{Address, Identifier, TypeTag};
use sui_transaction_builder::{Argument, Function, ObjectInput, TransactionBuilder};

use super::TxError;
use crate::{
    ObjectId,
    chain::SystemView,
    object_id::{CLOCK, address},
};

/// RedStuff, in Walrus' numbering of encodings.
const ENCODING_RS2: u8 = 1;
/// Bytes of a pure argument: the chain's own limit.
const PURE_BYTES_MAX: usize = 16 * 1024;

/// A certificate as the contract takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certification {
    /// The `Blob` object.
    pub blob: ObjectId,
    /// Aggregate signature, 96 bytes.
    pub signature: Vec<u8>,
    /// Signers: member `i` is bit `i % 8` of byte `i / 8`.
    pub bitmap: Vec<u8>,
    /// What was signed.
    pub message: Vec<u8>,
}

impl Certification {
    /// Of a `Blob` object, from a certificate of its storage.
    #[must_use]
    pub fn new(blob: ObjectId, certificate: &ConfirmationCertificate, bitmap: &[u8]) -> Self {
        let signature = certificate.signature.to_vec();
        Self { blob, signature, bitmap: bitmap.to_vec(), message: certificate.message.clone() }
    }
}

/// An update of an archive: one new level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The sequence that the archive must still have.
    pub expected: u64,
    /// Merkle root of the new level.
    pub root: [u8; 32],
    /// Entries of the new level.
    pub leaves: u64,
    /// First Walrus epoch in which the level need no longer be stored.
    pub end_epoch: u32,
    /// Positions of the old levels that stay, rising.
    pub keep: Vec<u64>,
    /// Where the new level goes among them.
    pub place: u64,
}

/// A transaction under construction.
pub struct Ptb<'a> {
    pub(super) builder: &'a mut TransactionBuilder,
    pub(super) view: &'a SystemView,
    pub(super) sender: Address,
    /// The objects of the request, in its order.
    pub(super) objects: Vec<ObjectInput>,
    /// The WAL coin to pay from, if any WAL is needed.
    pub(super) wal: Option<Argument>,
}

impl std::fmt::Debug for Ptb<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ptb").finish_non_exhaustive()
    }
}

impl Ptb<'_> {
    /// The `place`-th object of the request.
    ///
    /// # Errors
    /// There is none.
    pub fn object(&mut self, place: usize) -> Result<Argument, TxError> {
        let input = self.objects.get(place).cloned();
        let input = input.ok_or_else(|| TxError::Build(format!("no object {place}")))?;
        Ok(self.builder.object(input))
    }

    /// A value.
    ///
    /// # Errors
    /// Longer than the chain takes.
    pub fn pure<T: serde::Serialize>(&mut self, value: &T) -> Result<Argument, TxError> {
        let bytes = bcs::to_bytes(value).map_err(|error| TxError::Build(error.to_string()))?;
        if bytes.len() > PURE_BYTES_MAX {
            return Err(TxError::Build(format!(
                "an argument of {} bytes; the chain takes {PURE_BYTES_MAX}",
                bytes.len()
            )));
        }
        Ok(self.builder.pure_bytes(bytes))
    }

    /// Any call.
    ///
    /// # Errors
    /// A name that is no identifier.
    pub fn call(
        &mut self,
        package: ObjectId,
        module: &str,
        function: &str,
        arguments: Vec<Argument>,
    ) -> Result<Argument, TxError> {
        let name = |text: &str| {
            Identifier::new(text).map_err(|error| TxError::Build(format!("{text}: {error}")))
        };
        let function = Function::new(address(package), name(module)?, name(function)?);
        Ok(self.builder.move_call(function, arguments))
    }

    /// Gives results to the sender.
    ///
    /// # Errors
    /// None in practice.
    pub fn keep(&mut self, objects: Vec<Argument>) -> Result<(), TxError> {
        let to = self.pure(&self.sender.clone())?;
        self.builder.transfer_objects(objects, to);
        Ok(())
    }

    fn system(&mut self, mutable: bool) -> Argument {
        let (id, at) = (address(self.view.system_object), self.view.system_shared_at);
        self.builder.object(ObjectInput::shared(id, at, mutable))
    }

    fn clock(&mut self) -> Argument {
        self.builder.object(ObjectInput::shared(address(CLOCK), 1, false))
    }

    fn wal(&self) -> Result<Argument, TxError> {
        self.wal.ok_or_else(|| TxError::Build("no WAL was asked for".to_owned()))
    }

    /// Buys storage, registers a blob with it and gives the `Blob` to the sender.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn register(&mut self, registration: &Registration) -> Result<(), TxError> {
        let package = self.view.package;
        let (system, wal) = (self.system(true), self.wal()?);
        let amount = self.pure(&registration.encoded_length)?;
        let epochs = self.pure(&registration.epochs)?;
        let storage =
            self.call(package, "system", "reserve_space", vec![system, amount, epochs, wal])?;
        let blob_id = self.pure(registration.blob.as_bytes())?;
        let root = self.pure(registration.root_hash.as_bytes())?;
        let size = self.pure(&registration.unencoded_length)?;
        let encoding = self.pure(&ENCODING_RS2)?;
        let deletable = self.pure(&registration.deletable)?;
        let arguments = vec![system, storage, blob_id, root, size, encoding, deletable, wal];
        let blob = self.call(package, "system", "register_blob", arguments)?;
        self.keep(vec![blob])
    }

    /// Certifies the blob that is the `place`-th object of the request.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn certify(&mut self, place: usize, with: &Certification) -> Result<(), TxError> {
        let (system, blob) = (self.system(false), self.object(place)?);
        let signature = self.pure(&with.signature)?;
        let bitmap = self.pure(&with.bitmap)?;
        let message = self.pure(&with.message)?;
        let arguments = vec![system, blob, signature, bitmap, message];
        self.call(self.view.package, "system", "certify_blob", arguments).map(|_| ())
    }

    /// Extends the storage of a certified blob by `epochs`.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn extend_blob(&mut self, place: usize, epochs: u32) -> Result<(), TxError> {
        let (system, wal, blob) = (self.system(true), self.wal()?, self.object(place)?);
        let epochs = self.pure(&epochs)?;
        let arguments = vec![system, blob, epochs, wal];
        self.call(self.view.package, "system", "extend_blob", arguments).map(|_| ())
    }

    /// Publishes modules and gives the `UpgradeCap` to the sender, or makes the package
    /// immutable.
    ///
    /// # Errors
    /// None in practice.
    pub fn publish(
        &mut self,
        modules: Vec<Vec<u8>>,
        dependencies: &[ObjectId],
        immutable: bool,
    ) -> Result<(), TxError> {
        let dependencies = dependencies.iter().map(|&id| address(id)).collect();
        let cap = self.builder.publish(modules, dependencies);
        if !immutable {
            return self.keep(vec![cap]);
        }
        let framework = ObjectId(Address::TWO.into_inner());
        self.call(framework, "package", "make_immutable", vec![cap]).map(|_| ())
    }

    /// Makes an archive and gives its two caps to the sender.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_create(
        &mut self,
        package: ObjectId,
        store_dir: &str,
        name: &str,
    ) -> Result<(), TxError> {
        let (dir, name) = (self.pure(&store_dir)?, self.pure(&name)?);
        let caps = self.call(package, "archive", "create", vec![dir, name])?;
        self.keep(caps.to_nested(2))
    }

    /// Adds a level to an archive. `archive`, `cap` and `blob` are places in the request.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_update(
        &mut self,
        package: ObjectId,
        (archive, cap, blob): (usize, usize, usize),
        update: &Update,
    ) -> Result<(), TxError> {
        let arguments = vec![
            self.object(archive)?,
            self.object(cap)?,
            self.pure(&update.expected)?,
            self.pure(&update.root.to_vec())?,
            self.pure(&update.leaves)?,
            self.pure(&update.end_epoch)?,
            self.pure(&update.keep)?,
            self.pure(&update.place)?,
            self.object(blob)?,
            self.system(false),
            self.clock(),
        ];
        self.call(package, "archive", "update", arguments).map(|_| ())
    }

    /// Moves the end of a level whose blob was extended.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_extend(
        &mut self,
        package: ObjectId,
        (archive, cap, blob): (usize, usize, usize),
        (expected, position, end_epoch): (u64, u64, u32),
    ) -> Result<(), TxError> {
        let arguments = vec![
            self.object(archive)?,
            self.object(cap)?,
            self.pure(&expected)?,
            self.pure(&position)?,
            self.pure(&end_epoch)?,
            self.object(blob)?,
            self.system(false),
            self.clock(),
        ];
        self.call(package, "archive", "extend", arguments).map(|_| ())
    }

    /// Says that the archive is up to date although nothing was published.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_beat(
        &mut self,
        package: ObjectId,
        (archive, cap): (usize, usize),
        expected: u64,
    ) -> Result<(), TxError> {
        let arguments =
            vec![self.object(archive)?, self.object(cap)?, self.pure(&expected)?, self.clock()];
        self.call(package, "archive", "beat", arguments).map(|_| ())
    }

    /// Gives the account `to` a new publisher's cap.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_add_publisher(
        &mut self,
        package: ObjectId,
        (archive, owner): (usize, usize),
        to: ObjectId,
    ) -> Result<(), TxError> {
        let arguments = vec![self.object(archive)?, self.object(owner)?];
        let cap = self.call(package, "archive", "add_publisher", arguments)?;
        let to = self.pure(&to.0)?;
        self.builder.transfer_objects(vec![cap], to);
        Ok(())
    }

    /// Makes a publisher's cap worthless.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_revoke(
        &mut self,
        package: ObjectId,
        (archive, owner): (usize, usize),
        publisher: ObjectId,
    ) -> Result<(), TxError> {
        let arguments = vec![self.object(archive)?, self.object(owner)?, self.pure(&publisher.0)?];
        self.call(package, "archive", "revoke_publisher", arguments).map(|_| ())
    }

    /// Ends an archive's changes for good; the owner's cap is used up.
    ///
    /// # Errors
    /// As [`Ptb::pure`].
    pub fn archive_freeze(
        &mut self,
        package: ObjectId,
        (archive, owner): (usize, usize),
    ) -> Result<(), TxError> {
        let arguments = vec![self.object(archive)?, self.object(owner)?];
        self.call(package, "archive", "freeze_forever", arguments).map(|_| ())
    }
}

/// `0x2::coin::Coin<T>` as text.
pub(super) fn coin_type(of: &str) -> String {
    let coin = Address::TWO;
    format!("{coin}::coin::Coin<{of}>")
}

/// The SUI coin's type.
pub(super) fn sui_type() -> String {
    TypeTag::from(sui_sdk_types::StructTag::sui()).to_string()
}
