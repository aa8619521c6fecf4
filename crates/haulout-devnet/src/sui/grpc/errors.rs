//! Errors in the words and with the details of a full node.

use prost::{Message, Name, bytes::Bytes};
use prost_types::Any;
use sui_rpc::{
    field::{FieldMask, FieldMaskTree, FieldMaskUtil, MessageFields},
    proto::google::rpc::{self, BadRequest, bad_request::FieldViolation},
};
use sui_sdk_types::{Address, Digest};
use tonic::{Code, Status};

/// A field is not what it should be.
pub(super) fn invalid(field: &str, description: &str) -> Status {
    bad_request(description, field, description, "FIELD_INVALID")
}

/// A field that has to be there is not.
pub(super) fn missing(field: &str) -> Status {
    bad_request("", field, "", "FIELD_MISSING")
}

/// There is no such thing, or not any more.
pub(super) fn not_found(message: String) -> Status {
    let details = status(Code::NotFound, &message, vec![]).encode_to_vec();
    Status::with_details(Code::NotFound, message, Bytes::from(details))
}

/// The same as a message inside a batch.
pub(super) fn in_batch(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details())
        .unwrap_or_else(|_| self::status(status.code(), status.message(), vec![]))
}

fn bad_request(message: &str, field: &str, description: &str, reason: &str) -> Status {
    let violation = FieldViolation {
        field: field.into(),
        description: description.into(),
        reason: reason.into(),
        ..FieldViolation::default()
    };
    let mut request = BadRequest::default();
    request.field_violations.push(violation);
    let detail = Any { type_url: BadRequest::type_url(), value: request.encode_to_vec() };
    let code = Code::InvalidArgument;
    let details = status(code, message, vec![detail]).encode_to_vec();
    Status::with_details(code, message, Bytes::from(details))
}

fn status(code: Code, message: &str, details: Vec<Any>) -> rpc::Status {
    rpc::Status { code: code as i32, message: message.into(), details }
}

/// The mask of a request, or the method's own.
pub(super) fn mask<M: MessageFields>(
    mask: Option<FieldMask>,
    default: &str,
) -> Result<FieldMaskTree, Status> {
    let mask = mask.unwrap_or_else(|| <FieldMask as FieldMaskUtil>::from_str(default));
    match mask.validate::<M>() {
        Ok(()) => Ok(FieldMaskTree::from(mask)),
        Err(path) => Err(invalid("read_mask", &format!("invalid read_mask path: {path}"))),
    }
}

/// An object id or account.
pub(super) fn address(text: Option<&str>, field: &str, path: &str) -> Result<Address, Status> {
    let text = text.ok_or_else(|| missing(path))?;
    text.parse().map_err(|_| {
        let reason = "Unable to parse Address (must be hex string of length 32)";
        invalid(path, &format!("invalid {field}: {reason}"))
    })
}

/// A digest.
pub(super) fn digest(text: Option<&str>, field: &str) -> Result<Digest, Status> {
    let text = text.ok_or_else(|| missing(field))?;
    text.parse().map_err(|_| {
        let reason = "Unable to parse Digest (must be Base58 string of length 32)";
        invalid(field, &format!("invalid {field}: {reason}"))
    })
}
