//! Object ids, addresses and package ids: 32 bytes, written `0x` and hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The name of an object, an account or a package on Sui.
///
/// Text: `0x` and 1 to 64 hexadecimal digits; leading zeros may be left out when
/// reading (`0x6`) and are written in full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

/// The text was not an object id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object id is 0x and up to 64 hexadecimal digits")]
pub struct ObjectIdError;

impl ObjectId {
    /// The `0x5` object with the validators.
    pub const SYSTEM_STATE: Self = Self::small(5);
    /// The `0x6` clock.
    pub const CLOCK: Self = Self::small(6);

    const fn small(last: u8) -> Self {
        let mut bytes = [0; 32];
        bytes[31] = last;
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for ObjectId {
    type Err = ObjectIdError;

    fn from_str(text: &str) -> Result<Self, ObjectIdError> {
        let digits = text.strip_prefix("0x").ok_or(ObjectIdError)?;
        if digits.is_empty() || digits.len() > 64 {
            return Err(ObjectIdError);
        }
        let mut bytes = [0; 32];
        for (place, digit) in digits.chars().rev().enumerate() {
            let value = digit.to_digit(16).ok_or(ObjectIdError)?;
            let value = u8::try_from(value).map_err(|_| ObjectIdError)?;
            bytes[31 - place / 2] |= if place % 2 == 0 { value } else { value << 4 };
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

#[cfg(feature = "chain")]
impl From<ObjectId> for sui_sdk_types::Address {
    fn from(id: ObjectId) -> Self {
        Self::new(id.0)
    }
}

#[cfg(feature = "chain")]
impl From<sui_sdk_types::Address> for ObjectId {
    fn from(address: sui_sdk_types::Address) -> Self {
        Self(address.into_inner())
    }
}

/// Text for people's formats, 32 plain bytes for BCS.
impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(|error| D::Error::custom(format_args!("{error}, not {text:?}")))
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_read_and_the_full_form_is_written() {
        let clock: ObjectId = "0x6".parse().unwrap();
        assert_eq!(clock.to_string(), format!("0x{}6", "0".repeat(63)));
        assert_eq!(clock.to_string().parse(), Ok(clock));
        assert_eq!("0xaBc".parse::<ObjectId>().unwrap().0[30..], [0x0a, 0xbc]);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "0x", "6", "0xg", "0x 6", "0x+6", &format!("0x{}", "1".repeat(65))] {
            assert_eq!(text.parse::<ObjectId>(), Err(ObjectIdError), "{text}");
        }
    }
}
