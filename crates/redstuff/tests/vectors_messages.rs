//! Signed messages and quilts against the vectors.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{blob_id, hex, list, number, section, sha256, shards, text, unhex, vectors};
use redstuff::{
    Consistency, Secondary, SliverIndex,
    bcs::Wire,
    messages::{
        BlobPersistence, Confirmation, ConfirmationCertificate, InvalidBlobId, ProtocolMessage,
        SignedMessage, bitmap_signers, signers_bitmap,
    },
    quilt::{Quilt, QuiltFile, QuiltIndex, QuiltPatchId, QuiltView},
};
use serde_json::Value;

fn numbers(entry: &Value, key: &str) -> Vec<u16> {
    list(entry, key).iter().map(|v| v.as_u64().unwrap().try_into().unwrap()).collect()
}

#[test]
fn messages() {
    for entry in section("messages") {
        let epoch = number(entry, "epoch").try_into().unwrap();
        let blob = blob_id(entry, "blob_id");
        assert_eq!(hex(blob.as_bytes()), text(entry, "blob_id_hex"));
        let object = unhex(text(entry, "object_id_hex")).try_into().unwrap();
        let confirm = |persistence| {
            let message = ProtocolMessage { epoch, content: Confirmation { blob, persistence } };
            let bcs = message.to_bcs();
            assert_eq!(ProtocolMessage::from_bcs(&bcs), Ok(message));
            bcs
        };
        let permanent = confirm(BlobPersistence::Permanent);
        assert_eq!(hex(permanent), text(entry, "confirmation_permanent_bcs_hex"));
        let deletable = confirm(BlobPersistence::Deletable(object));
        assert_eq!(hex(&deletable), text(entry, "confirmation_deletable_bcs_hex"));
        let invalid = ProtocolMessage { epoch, content: InvalidBlobId(blob) };
        assert_eq!(hex(invalid.to_bcs()), text(entry, "invalid_blob_id_bcs_hex"));
        assert!(ProtocolMessage::<InvalidBlobId>::from_bcs(&deletable).is_err());

        let signed =
            SignedMessage::from_bcs(&unhex(text(entry, "signed_message_bcs_hex"))).unwrap();
        assert_eq!(signed.message, deletable);
        assert_eq!(hex(signed.to_bcs()), text(entry, "signed_message_bcs_hex"));

        let aggregate = &entry["aggregate"];
        let signers = numbers(aggregate, "signers");
        assert_eq!(hex(signers_bitmap(&signers)), text(aggregate, "signers_bitmap_hex"));
        let certificate = ConfirmationCertificate {
            signers,
            message: deletable,
            signature: unhex(text(aggregate, "aggregate_signature_hex")).try_into().unwrap(),
        };
        let bcs = unhex(text(aggregate, "certificate_bcs_hex"));
        assert_eq!(certificate.to_bcs(), bcs);
        assert_eq!(ConfirmationCertificate::from_bcs(&bcs), Ok(certificate));
    }
}

#[test]
fn bitmaps() {
    for entry in list(&vectors()["sui"], "signers_bitmap") {
        let signers = numbers(entry, "signers");
        let bitmap = unhex(text(entry, "bitmap_hex"));
        let members = number(entry, "n_members").try_into().unwrap();
        assert_eq!(signers_bitmap(&signers), bitmap);
        assert_eq!(bitmap_signers(&bitmap, members), Some(signers.clone()));
        assert_eq!(bitmap_signers(&bitmap, *signers.last().unwrap()), None);
    }
}

/// The files of an entry, in the listed order.
fn files(entry: &Value) -> Vec<QuiltFile> {
    let file = |(i, file): (usize, &Value)| {
        let length = usize::try_from(number(file, "len")).unwrap();
        let stream = common::pattern(text(entry, "pattern"), 13 * i + length);
        let data = stream[13 * i..].to_vec();
        assert_eq!(sha256(&data), text(file, "sha256"));
        let tags = file["tags"].as_object().unwrap().iter();
        let tags = tags.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()));
        QuiltFile { identifier: text(file, "identifier").to_owned(), tags: tags.collect(), data }
    };
    list(entry, "files").iter().enumerate().map(file).collect()
}

#[test]
fn quilts() {
    for entry in section("quilts") {
        let (n, files) = (shards(entry), files(entry));
        let quilt = match (Quilt::new(n, files.clone()), entry.get("error")) {
            (Ok(quilt), None) => quilt,
            (Err(_), Some(_)) => continue,
            (outcome, _) => panic!("{}: {outcome:?}", text(entry, "name")),
        };
        assert_eq!(u64::from(quilt.symbol_size().get()), number(entry, "symbol_size"));
        assert_eq!(quilt.blob().len() as u64, number(entry, "quilt_len"));
        assert_eq!(sha256(quilt.blob()), text(entry, "quilt_sha256"));
        let encoded = n.encode(quilt.blob().to_vec()).unwrap();
        let id = *encoded.metadata().id();
        assert_eq!(id.to_string(), text(entry, "quilt_blob_id"));
        assert_eq!(hex(quilt.index().to_bcs()), text(entry, "index_bcs_hex"));

        let patches = list(entry, "patches");
        assert_eq!(patches.len(), quilt.index().patches().len());
        let view = QuiltView::of_blob(n, quilt.blob()).unwrap();
        assert_eq!(&view.index().unwrap(), quilt.index());
        for expected in patches {
            let patch = quilt.index().find(text(expected, "identifier")).unwrap();
            assert_eq!(u64::from(patch.columns.start), number(expected, "start_index"));
            assert_eq!(u64::from(patch.columns.end), number(expected, "end_index"));
            let patch_id = QuiltPatchId::new(id, &patch.columns);
            assert_eq!(patch_id.to_string(), text(expected, "patch_id"));
            assert_eq!(hex(patch_id.to_bcs()), text(expected, "patch_id_hex"));
            assert_eq!(text(expected, "patch_id").parse(), Ok(patch_id));
            let original = files.iter().find(|file| file.identifier == patch.identifier).unwrap();
            assert_eq!(&view.file(patch).unwrap(), original);
            // The same from the file's own slivers only.
            let slivers: Vec<_> = patch
                .columns
                .clone()
                .map(|c| encoded.sliver::<Secondary>(SliverIndex::new(c)).unwrap())
                .collect();
            let few = QuiltView::of_slivers(encoded.metadata(), &slivers).unwrap();
            assert_eq!(&few.file_at(patch.columns.clone()).unwrap(), original);
        }
        let first: Vec<_> = (0..view.index_columns().unwrap())
            .map(|c| encoded.sliver::<Secondary>(SliverIndex::new(c)).unwrap())
            .collect();
        let columns = QuiltView::of_slivers(encoded.metadata(), &first).unwrap();
        let index: QuiltIndex = columns.index().unwrap();
        assert_eq!(&index, quilt.index());

        let all: Vec<_> = encoded.slivers::<Secondary>().skip(n.max_faulty().into()).collect();
        let blob = redstuff::decode(encoded.metadata(), &all, Consistency::Strict).unwrap();
        assert!(blob == quilt.blob());
    }
}
