//! Publishing: reads just enough of the bytecode to name the package.

use std::collections::BTreeMap;

use sui_sdk_types::{Address, ExecutionError, Identifier, MovePackage, TypeOrigin, UpgradeInfo};

use super::{Failure, Session, Value};
use crate::sui::{model::Kind, names::upgrade_cap_tag};

/// Sui's limits: modules and bytes of a package.
const MODULES_MAX: usize = 64;
const PACKAGE_BYTES_MAX: usize = 100 * 1024;

/// What is read of a module.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    structs: Vec<String>,
    /// Where the module's own address stands, to be replaced by the package's id.
    own_address: usize,
    /// Packages that it names, its own among them.
    addresses: Vec<Address>,
}

/// Publishes the modules as a new package. Gives its `UpgradeCap`.
pub(crate) fn publish(
    session: &mut Session<'_>,
    modules: &[Vec<u8>],
    dependencies: &[Address],
) -> Result<Vec<Value>, Failure> {
    let bytes: usize = modules.iter().map(Vec::len).sum();
    if modules.is_empty() || modules.len() > MODULES_MAX || bytes > PACKAGE_BYTES_MAX {
        let (object_size, max_object_size) = (bytes as u64, PACKAGE_BYTES_MAX as u64);
        return Err(Failure(ExecutionError::PackageTooBig { object_size, max_object_size }));
    }
    let id = session.fresh_id();
    let bad = || Failure(ExecutionError::VmVerificationOrDeserializationError);
    let mut code = BTreeMap::new();
    let mut origins = Vec::new();
    let mut named = Vec::new();
    for bytes in modules {
        let module = parse(bytes).ok_or_else(bad)?;
        named.extend(module.addresses);
        let name = Identifier::new(&module.name).map_err(|_| bad())?;
        for name_of_struct in &module.structs {
            origins.push(TypeOrigin {
                module_name: name.clone(),
                struct_name: Identifier::new(name_of_struct).map_err(|_| bad())?,
                package: id,
            });
        }
        let own = module.own_address..module.own_address + Address::LENGTH;
        let mut bytes = bytes.clone();
        match bytes.get_mut(own) {
            Some(place) if *place == [0; Address::LENGTH] => place.copy_from_slice(id.as_bytes()),
            _ => return Err(Failure(ExecutionError::PublishErrorNonZeroAddress)),
        }
        code.insert(name, bytes);
    }
    let mut linkage = BTreeMap::new();
    let missing = || Failure(ExecutionError::PublishUpgradeMissingDependency);
    for &dependency in dependencies {
        let known = session.env.packages.get(dependency).ok_or_else(missing)?;
        let version = session.env.store.get(dependency).map_or(1, |object| object.version());
        let info = UpgradeInfo { upgraded_id: dependency, upgraded_version: version };
        linkage.insert(known.original, info);
    }
    // Everything that is named, and what Walrus depends on itself.
    let packages = session.env.packages;
    if linkage.contains_key(&packages.walrus()) {
        named.push(packages.wal());
    }
    if named.iter().any(|id| *id != Address::ZERO && !linkage.contains_key(id)) {
        return Err(missing());
    }
    session.publish(MovePackage {
        id,
        version: 1,
        modules: code,
        type_origin_table: origins,
        linkage_table: linkage,
    });
    let cap = session.fresh_id();
    session.create(cap, upgrade_cap_tag(), true, &(cap, id, 1u64, 0u8));
    Ok(vec![Value::Object(cap)])
}

/// Which model stands behind a published package: the archive contract is known by its module
/// and its structs.
pub(crate) fn kind_of(package: &MovePackage) -> Kind {
    let archive = |name: &str| {
        package.type_origin_table.iter().any(|origin| {
            origin.module_name.as_str() == "archive" && origin.struct_name.as_str() == name
        })
    };
    if package.modules.len() == 1 && archive("Archive") && archive("PublisherCap") {
        Kind::Archive
    } else {
        Kind::Opaque
    }
}

/// Reads a module: header, table of tables, then the tables of names.
fn parse(bytes: &[u8]) -> Option<Module> {
    const MODULE_HANDLES: u8 = 0x1;
    const DATATYPE_HANDLES: u8 = 0x2;
    const IDENTIFIERS: u8 = 0x7;
    const ADDRESSES: u8 = 0x8;
    const STRUCT_DEFS: u8 = 0xa;

    let mut header = Reader { bytes, at: 0 };
    if header.take(4)? != [0xa1, 0x1c, 0xeb, 0x0b] {
        return None;
    }
    header.take(4)?;
    let count = header.uleb()?;
    let mut tables = BTreeMap::new();
    for _ in 0..count.min(32) {
        let kind = header.take(1)?[0];
        let (offset, length) = (header.uleb()?, header.uleb()?);
        tables.insert(kind, (offset, length));
    }
    let content = header.at;
    // The module's own handle comes after all tables.
    let end = tables.values().map(|(offset, length)| offset + length).max()?;
    let own_handle = Reader { bytes, at: content.checked_add(end)? }.uleb()?;
    let table = |kind| {
        let &(offset, length) = tables.get(&kind)?;
        let start = content.checked_add(offset)?;
        let bytes = bytes.get(..start.checked_add(length)?)?;
        Some(Reader { bytes, at: start })
    };

    let mut identifiers = Vec::new();
    let mut reader = table(IDENTIFIERS)?;
    while !reader.is_empty() {
        let length = reader.uleb()?;
        identifiers.push(std::str::from_utf8(reader.take(length)?).ok()?.to_owned());
    }
    let mut handles = Vec::new();
    let mut reader = table(MODULE_HANDLES)?;
    while !reader.is_empty() {
        handles.push((reader.uleb()?, reader.uleb()?));
    }
    let &(address, name) = handles.get(own_handle)?;

    // A handle: module, name, abilities, type parameters (constraints and phantom flag each).
    let mut datatypes = Vec::new();
    if let Some(mut reader) = table(DATATYPE_HANDLES) {
        while !reader.is_empty() {
            let (_, name, _) = (reader.uleb()?, reader.uleb()?, reader.take(1)?);
            for _ in 0..reader.uleb()? {
                reader.uleb()?;
                reader.take(1)?;
            }
            datatypes.push(name);
        }
    }
    let structs = match table(STRUCT_DEFS) {
        None => vec![],
        Some(reader) => struct_names(reader, &datatypes, &identifiers)?,
    };
    let mut reader = table(ADDRESSES)?;
    let own_address = reader.at.checked_add(address.checked_mul(Address::LENGTH)?)?;
    let mut addresses = Vec::new();
    while !reader.is_empty() {
        addresses.push(Address::from_bytes(reader.take(Address::LENGTH)?).ok()?);
    }
    Some(Module { name: identifiers.get(name)?.clone(), structs, own_address, addresses })
}

/// The names in a table of struct definitions: handle, field kind, fields (name and type).
fn struct_names(
    mut reader: Reader<'_>,
    datatypes: &[usize],
    identifiers: &[String],
) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !reader.is_empty() {
        let handle = reader.uleb()?;
        if reader.take(1)?[0] == 0x2 {
            for _ in 0..reader.uleb()? {
                reader.uleb()?;
                reader.skip_type(0)?;
            }
        }
        names.push(identifiers.get(*datatypes.get(handle)?)?.clone());
    }
    Some(names)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn uleb(&mut self) -> Option<usize> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).ok();
            }
        }
        None
    }

    /// Skips a type signature, at most 256 levels deep as in Move.
    fn skip_type(&mut self, depth: u32) -> Option<()> {
        if depth > 256 {
            return None;
        }
        match self.take(1)?[0] {
            // bool, u8, u64, u128, address, signer, u16, u32, u256
            0x1..=0x5 | 0xc..=0xf => Some(()),
            // references and vectors
            0x6 | 0x7 | 0xa => self.skip_type(depth + 1),
            // a type parameter, a plain datatype
            0x8 | 0x9 => self.uleb().map(drop),
            // a generic datatype
            0xb => {
                self.uleb()?;
                for _ in 0..self.uleb()? {
                    self.skip_type(depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_not_followed() {
        let magic = [0xa1, 0x1c, 0xeb, 0x0b, 7, 0, 0, 5];
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&magic), None);
        for table in [[1u8, 0xff, 0xff], [7, 0, 200], [7, 0xff, 0x7f]] {
            let mut bytes = magic.to_vec();
            bytes.push(1);
            bytes.extend(table);
            bytes.extend([0x7f; 16]);
            assert_eq!(parse(&bytes), None);
        }
    }

    /// The archive contract's module, cut short and with every byte changed: read or refused.
    #[test]
    fn damaged_bytecode_is_refused_not_followed() {
        let good = haulout_archive::contract::module_for(&[7; 32]);
        let module = parse(&good).unwrap();
        assert_eq!(module.name, "archive");
        assert!(module.structs.iter().any(|name| name == "PublisherCap"));
        assert!(module.addresses.contains(&Address::new([7; 32])));
        for length in 0..good.len() {
            let _ = parse(&good[..length]);
        }
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                let _ = parse(&bytes);
            }
        }
    }
}
