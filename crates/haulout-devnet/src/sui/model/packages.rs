//! Which packages exist, and which model stands behind each.

use std::collections::BTreeMap;

use sui_sdk_types::{Address, Identifier, MovePackage, TypeOrigin, UpgradeInfo};

/// What runs when a package is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `0x1`, `0x2`, `0x3`.
    Framework,
    /// The WAL coin: no functions.
    Wal,
    /// The Walrus contracts.
    Walrus,
    /// The archive contract of this project.
    Archive,
    /// Published, but not modelled: calling it fails.
    Opaque,
}

/// A package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) kind: Kind,
    /// The id it was first published under: the one in type names.
    pub(crate) original: Address,
}

/// All packages by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packages {
    by_id: BTreeMap<Address, Package>,
    /// Original ids of the Walrus and WAL packages.
    walrus: Option<Address>,
    wal: Option<Address>,
}

impl Packages {
    pub(crate) fn get(&self, id: Address) -> Option<Package> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn insert(&mut self, id: Address, kind: Kind, original: Address) {
        self.by_id.insert(id, Package { kind, original });
        match kind {
            Kind::Walrus => self.walrus = Some(original),
            Kind::Wal => self.wal = Some(original),
            _ => {}
        }
    }

    /// The original id of Walrus; zero on a chain without it.
    pub(crate) fn walrus(&self) -> Address {
        self.walrus.unwrap_or(Address::ZERO)
    }

    /// The id of the WAL coin's package; zero on a chain without it.
    pub(crate) fn wal(&self) -> Address {
        self.wal.unwrap_or(Address::ZERO)
    }
}

/// Modules and their structs.
pub(crate) type Modules = &'static [(&'static str, &'static [&'static str])];

/// A package object of the genesis. Its modules have names and a bytecode header, no code: the
/// functions are modelled.
pub(crate) fn genesis_package(
    id: Address,
    original: Address,
    version: u64,
    structs: Modules,
) -> MovePackage {
    const HEADER: [u8; 8] = [0xa1, 0x1c, 0xeb, 0x0b, 7, 0, 0, 5];
    let module = |name| (Identifier::from_static(name), HEADER.to_vec());
    let origin = |module, name| TypeOrigin {
        module_name: Identifier::from_static(module),
        struct_name: Identifier::from_static(name),
        package: original,
    };
    let linkage = |id| (id, UpgradeInfo { upgraded_id: id, upgraded_version: 1 });
    MovePackage {
        id,
        version,
        modules: structs.iter().map(|(name, _)| module(name)).collect(),
        type_origin_table: structs
            .iter()
            .flat_map(|(module, names)| names.iter().map(move |name| origin(module, name)))
            .collect(),
        linkage_table: [Address::from_static("0x1"), Address::TWO]
            .into_iter()
            .filter(|dependency| *dependency != id)
            .map(linkage)
            .collect(),
    }
}
