//! The node's answers have the shape of a real full node's: the same requests, recorded with
//! their answers, under the same masks; the same fields there, the same fields absent, the same
//! errors to the letter.

use std::collections::BTreeSet;

use super::{walrus::*, *};
use crate::sui::{Devnet, exec::field_id};
use prost::Message;
use serde_json::Value;
use sui_rpc::{
    Client,
    proto::sui::rpc::v2::{self as rpc, get_checkpoint_request::CheckpointId},
};
use tonic::{Code, Status};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    method: String,
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: String,
}

/// Fields that only one of the two nodes has, and why.
const KNOWN: &[(&str, &str)] = &[
    // Of protocol versions after the recorded one: replaces `mutable`.
    ("", "inputs[].mutability"),
    // Of a real protocol's 300 constants and 120 flags there are three.
    ("epoch", "protocolConfig.attributes"),
];

/// The paths of all values in it, with arrays as one.
fn shape(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                shape(value, &format!("{path}.{name}"), paths);
            }
        }
        Value::Array(items) => {
            for item in items {
                shape(item, &format!("{path}[]"), paths);
            }
        }
        _ => drop(paths.insert(path.to_owned())),
    }
}

fn shape_of<M: Message + Default + serde::Serialize>(bytes: &[u8]) -> BTreeSet<String> {
    let message = M::decode(bytes).unwrap();
    let mut paths = BTreeSet::new();
    shape(&serde_json::to_value(&message).unwrap(), "", &mut paths);
    paths
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/full-node/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The recorded objects' counterparts here.
struct Here {
    devnet: Devnet,
    blob: Address,
    register: Arc<Executed>,
    certify: Arc<Executed>,
}

impl Here {
    fn new() -> Self {
        let setup = Setup { seed: [3; 32], ..Setup::default() };
        let devnet = Devnet::new(&setup, &committee(), || NOW);
        let operator = devnet.operator_address();
        let register = devnet
            .transact(|ptb, ids| {
                register(ptb, ids, operator, false, 5);
                Some(())
            })
            .unwrap();
        let blob = written(&register, "Blob");
        let cert = certificate(&[1, 2, 3], 1, None);
        let certify = devnet
            .transact(|ptb, ids| {
                let blob = ptb.owned(blob)?;
                certify(ptb, ids, blob, &cert);
                Some(())
            })
            .unwrap();
        Self { devnet, blob, register, certify }
    }

    /// The id that takes the place of a recorded one.
    fn id(&self, name: &str, recorded: Option<String>) -> Option<String> {
        const SYSTEM: &str = "0x3ac57921a72f415818723ea1819c4b05c3d510e6c63f558fc7918a8392560b10";
        const STAKING: &str = "0xa25706729693fb5aea56cc0bf7bba03f724807785d63f98c4767356da5049069";
        let here = match recorded.as_deref()? {
            SYSTEM => self.devnet.system_object(),
            STAKING => self.devnet.staking_object(),
            _ if name.contains("blob-p-0") => self.blob,
            _ if name.contains("node-pool") => Address::new([1; 32]),
            _ if name.contains("node-cap") => self.devnet.node_caps()[0],
            _ => return recorded,
        };
        Some(here.to_string())
    }
}

async fn ask(here: &Here, client: &mut Client, case: &Case) -> Result<BTreeSet<String>, Status> {
    let name = case.name.as_str();
    let request = fixture(&format!("{name}.request"));
    let bytes = request.as_slice();
    match case.method.as_str() {
        "GetServiceInfo" => {
            let request = rpc::GetServiceInfoRequest::decode(bytes).unwrap();
            let response = client.ledger_client().get_service_info(request).await?;
            Ok(shape_of::<rpc::GetServiceInfoResponse>(&response.into_inner().encode_to_vec()))
        }
        "GetEpoch" => {
            let request = rpc::GetEpochRequest::decode(bytes).unwrap();
            let response = client.ledger_client().get_epoch(request).await?;
            Ok(shape_of::<rpc::GetEpochResponse>(&response.into_inner().encode_to_vec()))
        }
        "GetObject" => {
            let mut request = rpc::GetObjectRequest::decode(bytes).unwrap();
            request.object_id = here.id(name, request.object_id);
            let response = client.ledger_client().get_object(request).await?;
            Ok(shape_of::<rpc::GetObjectResponse>(&response.into_inner().encode_to_vec()))
        }
        "BatchGetObjects" => {
            let mut request = rpc::BatchGetObjectsRequest::decode(bytes).unwrap();
            for one in &mut request.requests {
                one.object_id = here.id(name, one.object_id.take());
            }
            let response = client.ledger_client().batch_get_objects(request).await?;
            Ok(shape_of::<rpc::BatchGetObjectsResponse>(&response.into_inner().encode_to_vec()))
        }
        "ListDynamicFields" => {
            let mut request = rpc::ListDynamicFieldsRequest::decode(bytes).unwrap();
            request.parent = here.id(name, request.parent);
            let response = client.state_client().list_dynamic_fields(request).await?;
            Ok(shape_of::<rpc::ListDynamicFieldsResponse>(&response.into_inner().encode_to_vec()))
        }
        "GetTransaction" => {
            let mut request = rpc::GetTransactionRequest::decode(bytes).unwrap();
            match name {
                "tx-5" => request.digest = Some(here.register.digest.to_string()),
                "tx-8" | "tx-default-mask" => {
                    request.digest = Some(here.certify.digest.to_string());
                }
                _ => {}
            }
            let response = client.ledger_client().get_transaction(request).await?;
            Ok(shape_of::<rpc::GetTransactionResponse>(&response.into_inner().encode_to_vec()))
        }
        "GetCheckpoint" => {
            let mut request = rpc::GetCheckpointRequest::decode(bytes).unwrap();
            if let Some(CheckpointId::SequenceNumber(500)) = request.checkpoint_id {
                let number = here.certify.checkpoint;
                request.checkpoint_id = Some(CheckpointId::SequenceNumber(number));
            }
            let response = client.ledger_client().get_checkpoint(request).await?;
            Ok(shape_of::<rpc::GetCheckpointResponse>(&response.into_inner().encode_to_vec()))
        }
        other => panic!("{other}"),
    }
}

fn recorded(case: &Case) -> BTreeSet<String> {
    let bytes = fixture(&format!("{}.response", case.name));
    match case.method.as_str() {
        "GetServiceInfo" => shape_of::<rpc::GetServiceInfoResponse>(&bytes),
        "GetEpoch" => shape_of::<rpc::GetEpochResponse>(&bytes),
        "GetObject" => shape_of::<rpc::GetObjectResponse>(&bytes),
        "BatchGetObjects" => shape_of::<rpc::BatchGetObjectsResponse>(&bytes),
        "ListDynamicFields" => shape_of::<rpc::ListDynamicFieldsResponse>(&bytes),
        "GetTransaction" => shape_of::<rpc::GetTransactionResponse>(&bytes),
        "GetCheckpoint" => shape_of::<rpc::GetCheckpointResponse>(&bytes),
        other => panic!("{other}"),
    }
}

fn is_known(case: &str, path: &str) -> bool {
    KNOWN.iter().any(|(of, known)| case.starts_with(of) && path.contains(known))
}

#[tokio::test]
async fn answers_have_the_recorded_shape() {
    let here = Here::new();
    let node = here.devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut client = Client::new(node.url()).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&fixture("cases.json")).unwrap();
    assert!(cases.len() > 25);
    let mut differences = Vec::new();
    for case in &cases {
        let name = &case.name;
        match ask(&here, &mut client, case).await {
            Ok(shape) => {
                assert_eq!(case.code, "OK", "{name}");
                let recorded = recorded(case);
                let missing = recorded.difference(&shape).filter(|path| !is_known(name, path));
                differences.extend(missing.map(|path| format!("{name}: lacks {path}")));
                let more = shape.difference(&recorded).filter(|path| !is_known(name, path));
                differences.extend(more.map(|path| format!("{name}: has {path}")));
            }
            Err(status) => {
                let code = match status.code() {
                    Code::NotFound => "NOT_FOUND",
                    Code::InvalidArgument => "INVALID_ARGUMENT",
                    other => panic!("{name}: {other:?}"),
                };
                assert_eq!(case.code, code, "{name}");
                let id = here.devnet.system_object().to_string();
                let recorded = "0x3ac57921a72f415818723ea1819c4b05c3d510e6c63f558fc7918a8392560b10";
                assert_eq!(case.message.replace(recorded, &id), status.message(), "{name}");
                let details = data_encoding::BASE64_NOPAD;
                let details =
                    details.decode(case.details.trim_end_matches('=').as_bytes()).unwrap();
                if !case.message.contains(recorded) {
                    assert_eq!(details, status.details(), "{name}");
                }
                assert!(status.metadata().contains_key("x-sui-checkpoint-height"), "{name}");
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn a_subscription_has_the_recorded_shape() {
    let here = Here::new();
    let node = here.devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut client = Client::new(node.url()).unwrap();
    let request = fixture("subscribe.request");
    let request = rpc::SubscribeCheckpointsRequest::decode(request.as_slice()).unwrap();
    let response = client.subscription_client().subscribe_checkpoints(request).await.unwrap();
    assert!(response.metadata().contains_key("x-sui-chain-id"));
    let mut stream = response.into_inner();
    let next = here.devnet.height() + 1;
    here.devnet.tick();
    here.devnet.tick();
    for number in [next, next + 1] {
        let message = stream.message().await.unwrap().unwrap();
        assert_eq!(message.cursor, Some(number));
        let here = shape_of::<rpc::SubscribeCheckpointsResponse>(&message.encode_to_vec());
        let there = shape_of::<rpc::SubscribeCheckpointsResponse>(&fixture("subscribe.response"));
        assert_eq!(here, there);
    }
}

#[tokio::test]
async fn pages_end() {
    let here = Here::new();
    let node = here.devnet.serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut client = Client::new(node.url()).unwrap();
    let mut ids = BTreeSet::new();
    let mut token = None;
    for _ in 0..100 {
        let mut request = rpc::ListOwnedObjectsRequest::default();
        request.owner = Some(here.devnet.operator_address().to_string());
        request.page_size = Some(3);
        request.page_token = token;
        let page = client.state_client().list_owned_objects(request).await.unwrap().into_inner();
        ids.extend(page.objects.into_iter().filter_map(|object| object.object_id));
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(token, None);
    // 4 SUI, 4 WAL, 4 node caps, the blob.
    assert_eq!(ids.len(), 13);
    let mut request = rpc::GetBalanceRequest::default();
    request.owner = Some(here.devnet.operator_address().to_string());
    request.coin_type = Some(format!("{}::wal::WAL", here.devnet.wal_package()));
    let balance = client.state_client().get_balance(request).await.unwrap().into_inner();
    let spent = 5 * 100_000 + 20_000;
    assert_eq!(balance.balance.unwrap().balance, Some(400_000 * 1_000_000_000 - spent));
    let field = field_id(here.devnet.system_object(), 3);
    let mut request = rpc::GetObjectRequest::default();
    request.object_id = Some(field.to_string());
    client.ledger_client().get_object(request).await.unwrap();
}
