use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use haulout_walrus::{ChainErrorKind, Registrar, Registration};
use prost::Message as _;
use redstuff::{BlobId, Digest as RootHash};
use sui_crypto::{SuiSigner, ed25519::Ed25519PrivateKey};
use sui_rpc::proto::sui::rpc::v2;
use sui_sdk_types::{
    Address, Input, MoveStruct, Object, ObjectData, Owner, StructTag, Transaction, TransactionKind,
};
use sui_transaction_builder::ObjectInput;

use super::{
    wallet::{coins::OwnedCoin, prepare::Parts},
    *,
};
use crate::{
    ObjectId,
    chain::SuiChain,
    object_id::address,
    testing_exchanges as exchanges,
    testing_node::{Ledger, Server, recorded_network},
    walrus_types::{Blob, Storage},
};

const WAL: &str = "0xfac2dd4e826a49eb463f04d4ef5c129252856bf2158a3c25c3a2008ad7622d33";

fn recorded_transaction(name: &str) -> Transaction {
    let answer = v2::GetTransactionResponse::decode(&exchanges::load()[name].response[..]).unwrap();
    answer.transaction().transaction().bcs().deserialize().unwrap()
}

fn key() -> Ed25519PrivateKey {
    Ed25519PrivateKey::new([7; 32])
}

/// What the recorded transaction names as its objects, by place.
fn named(transaction: &Transaction) -> (Vec<ObjectInput>, Vec<Vec<u8>>) {
    let TransactionKind::ProgrammableTransaction(ptb) = &transaction.kind else {
        panic!("programmable")
    };
    let mut objects = Vec::new();
    let mut pure = Vec::new();
    for input in &ptb.inputs {
        match input {
            Input::ImmutableOrOwned(reference) => objects.push(ObjectInput::owned(
                *reference.object_id(),
                reference.version(),
                *reference.digest(),
            )),
            Input::Pure(bytes) => pure.push(bytes.clone()),
            _ => {}
        }
    }
    (objects, pure)
}

fn gas_of(transaction: &Transaction) -> Vec<OwnedCoin> {
    let coins = transaction.gas_payment.objects.iter();
    coins
        .map(|coin| OwnedCoin {
            input: ObjectInput::owned(*coin.object_id(), coin.version(), *coin.digest()),
            balance: 0,
        })
        .collect()
}

async fn recorded_chain(ledger: Ledger) -> (Server, Arc<SuiChain>) {
    let (server, url) = Server::start(ledger).await;
    let mut network = recorded_network(&[&url]);
    network.wal_package = Some(WAL.parse().unwrap());
    (server, Arc::new(SuiChain::new(&network)))
}

#[tokio::test]
async fn transactions_are_byte_for_byte_those_of_walrus_own_client() {
    let (_, chain) = recorded_chain(Ledger::recorded()).await;
    let view = chain.system(false).await.unwrap();

    // The recorded registration of an empty blob.
    let recorded = recorded_transaction("tx-5");
    let (coins, pure) = named(&recorded);
    let array = |place: usize| <[u8; 32]>::try_from(&pure[place][..]).unwrap();
    let registration = Registration {
        blob: BlobId(array(2)),
        root_hash: RootHash::new(array(3)),
        unencoded_length: 0,
        encoded_length: 11_596,
        epochs: 20,
        deletable: false,
    };
    let parts = Parts {
        view: &view,
        objects: Vec::new(),
        wal: coins.into_iter().map(|input| OwnedCoin { input, balance: 0 }).collect(),
        gas: gas_of(&recorded),
        price: recorded.gas_payment.price,
        sender: recorded.sender,
    };
    let request = Request {
        purpose: String::new(),
        wal: 101,
        objects: Vec::new(),
        build: &|ptb| ptb.register(&registration),
    };
    assert_eq!(parts.build(&request, recorded.gas_payment.budget).unwrap(), recorded);

    // The recorded certification of the same blob.
    let recorded = recorded_transaction("tx-8");
    let (objects, pure) = named(&recorded);
    let with = Certification {
        blob: ObjectId([0; 32]),
        signature: bcs::from_bytes(&pure[0]).unwrap(),
        bitmap: bcs::from_bytes(&pure[1]).unwrap(),
        message: bcs::from_bytes(&pure[2]).unwrap(),
    };
    let parts = Parts { objects, wal: Vec::new(), gas: gas_of(&recorded), ..parts };
    let request = Request { wal: 0, build: &|ptb| ptb.certify(0, &with), ..request };
    assert_eq!(parts.build(&request, recorded.gas_payment.budget).unwrap(), recorded);
}

#[tokio::test]
async fn certify_and_update_are_one_transaction() {
    let (_, chain) = recorded_chain(Ledger::recorded()).await;
    let view = chain.system(false).await.unwrap();
    let recorded = recorded_transaction("tx-8");
    let object = |n: u8| ObjectInput::owned(Address::new([n; 32]), 1, sui_sdk_types::Digest::ZERO);
    let parts = Parts {
        view: &view,
        objects: vec![ObjectInput::shared(Address::new([1; 32]), 5, true), object(2), object(3)],
        wal: Vec::new(),
        gas: gas_of(&recorded),
        price: 1_000,
        sender: recorded.sender,
    };
    let with = Certification {
        blob: ObjectId([3; 32]),
        signature: vec![1; 96],
        bitmap: vec![3],
        message: vec![4; 40],
    };
    let update = Update {
        expected: 4,
        root: [9; 32],
        leaves: 10,
        end_epoch: 30,
        keep: vec![0, 2],
        place: 0,
    };
    let package = ObjectId([0x99; 32]);
    let request = Request {
        purpose: String::new(),
        wal: 0,
        objects: Vec::new(),
        build: &|ptb| {
            ptb.certify(2, &with)?;
            ptb.archive_update(package, (0, 1, 2), &update)
        },
    };
    let built = parts.build(&request, 1).unwrap();
    let TransactionKind::ProgrammableTransaction(ptb) = &built.kind else { panic!() };
    assert_eq!(ptb.commands.len(), 2);
    let sui_sdk_types::Command::MoveCall(call) = &ptb.commands[1] else { panic!() };
    assert_eq!((call.function.as_str(), call.arguments.len()), ("update", 11));
    // The blob is one input of both calls; System is read only; the clock is there.
    let shared = ptb.inputs.iter().filter(|input| matches!(input, Input::Shared(_))).count();
    assert_eq!(shared, 3, "System, archive, clock");
    assert!(bcs::to_bytes(&built).unwrap().len() < 2_000);
    // Places that do not exist, and arguments that are too long, are errors, not panics.
    let wrong = Request { build: &|ptb| ptb.certify(9, &with), ..request };
    assert!(matches!(parts.build(&wrong, 1), Err(TxError::Build(_))));
    let long = Certification { message: vec![0; 20_000], ..with.clone() };
    let wrong = Request { build: &|ptb| ptb.certify(2, &long), ..wrong };
    assert!(parts.build(&wrong, 1).unwrap_err().to_string().contains("20003 bytes"));
}

fn coin(id: u8, of: StructTag, balance: u64) -> Object {
    let contents = [&[id; 32][..], &balance.to_le_bytes()].concat();
    let value = MoveStruct::new(StructTag::coin(of.into()), true, 3, contents).unwrap();
    let owner = Owner::Address(key().public_key().derive_address());
    Object::new(ObjectData::Struct(value), owner, sui_sdk_types::Digest::ZERO, 0)
}

fn blob(id: u8, registration: &Registration) -> Object {
    let blob = Blob {
        id: ObjectId([id; 32]),
        registered_epoch: 1,
        blob_id: registration.blob,
        size: registration.unencoded_length,
        encoding_type: 1,
        certified_epoch: None,
        storage: Storage {
            id: ObjectId([id.wrapping_add(1); 32]),
            start_epoch: 1,
            end_epoch: 1 + registration.epochs,
            storage_size: registration.encoded_length,
        },
        deletable: registration.deletable,
    };
    let package = "0x739a1510caaaa78d03ef31a4f49702729d9149f66628739fbcdd9091a3d8f030";
    let tag: StructTag = format!("{package}::blob::Blob").parse().unwrap();
    let value = MoveStruct::new(tag, true, 9, bcs::to_bytes(&blob).unwrap()).unwrap();
    let owner = Owner::Address(key().public_key().derive_address());
    Object::new(ObjectData::Struct(value), owner, sui_sdk_types::Digest::ZERO, 0)
}

fn registration() -> Registration {
    Registration {
        blob: BlobId([5; 32]),
        root_hash: RootHash::new([6; 32]),
        unencoded_length: 1_000,
        encoded_length: 3 << 20,
        epochs: 4,
        deletable: false,
    }
}

fn wallet_ledger() -> Ledger {
    let mut ledger = Ledger::recorded();
    let wal: StructTag = format!("{WAL}::wal::WAL").parse().unwrap();
    for object in [
        coin(0xc1, StructTag::sui(), 2_000_000_000),
        coin(0xc2, StructTag::sui(), 9_000_000_000),
        coin(0xc3, wal.clone(), 40),
        coin(0xc4, wal, 30),
    ] {
        ledger.add_object(&bcs::to_bytes(&object).unwrap());
    }
    ledger.makes = vec![blob(0xb1, &registration())];
    ledger
}

struct Fixture {
    server: Server,
    chain: Arc<SuiChain>,
    asked: Arc<AtomicU32>,
    state: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let (server, chain) = recorded_chain(wallet_ledger()).await;
        Self { server, chain, asked: Arc::default(), state: tempfile::tempdir().unwrap() }
    }

    /// As a new process would make it.
    fn registrar(&self, yes: bool) -> SuiRegistrar {
        let asked = self.asked.clone();
        let confirm: Confirm = Arc::new(move |estimate| {
            assert_eq!(estimate.wal, 3 * 5 * 4 + 3, "three units, four epochs, one write");
            assert_eq!(estimate.gas.net(), 2_500_000);
            assert_eq!(estimate.budget, 3_600_000, "a fifth more than tried");
            asked.fetch_add(1, Ordering::Relaxed);
            yes
        });
        let signer = Signer::from_key(key());
        let state = Some(self.state.path());
        let wallet = Wallet::new(self.chain.clone(), signer, state, confirm);
        SuiRegistrar::new(Arc::new(wallet))
    }

    fn executed(&self) -> usize {
        self.server.0.lock().unwrap().executed.len()
    }

    fn journal(&self) -> usize {
        let directory = self.state.path().join("transactions");
        std::fs::read_dir(directory).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn a_blob_is_registered_once_and_the_cost_is_shown() {
    let fixture = Fixture::new().await;
    let registrar = fixture.registrar(true);
    assert_eq!(registrar.price(&[registration()]).await.unwrap(), 63);
    assert_eq!(registrar.existing(&registration()).await.unwrap(), None);
    let registered = registrar.register(&registration()).await.unwrap();
    assert_eq!(registered.object, ObjectId([0xb1; 32]));
    assert_eq!((registered.epoch, registered.end_epoch), (1, 5));
    assert_eq!((fixture.executed(), fixture.journal()), (1, 0));
    assert_eq!(fixture.asked.load(Ordering::Relaxed), 1);
    // Whoever comes again finds it.
    assert_eq!(registrar.existing(&registration()).await.unwrap(), Some(registered));
    let longer = Registration { epochs: 5, ..registration() };
    assert_eq!(registrar.existing(&longer).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_is_sent_without_a_yes_or_without_coins() {
    let fixture = Fixture::new().await;
    let error = fixture.registrar(false).register(&registration()).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Refused);
    assert!(error.to_string().starts_with("not confirmed: register blob"), "{error}");
    assert_eq!((fixture.executed(), fixture.journal()), (0, 0));

    let dear = Registration { encoded_length: 4 << 20, ..registration() };
    let error = fixture.registrar(true).register(&dear).await.unwrap_err().to_string();
    assert!(error.contains("has 70 FROST of WAL; 84 are needed"), "{error}");
    fixture.server.change(|ledger| {
        ledger.objects.remove(&Address::new([0xc1; 32]));
        ledger.objects.remove(&Address::new([0xc2; 32]));
    });
    let error = fixture.registrar(true).register(&registration()).await.unwrap_err().to_string();
    assert!(error.contains("MIST of SUI"), "{error}");
    assert_eq!(fixture.executed(), 0);
}

#[tokio::test]
async fn a_node_that_names_an_absurd_price_is_told_that_there_is_not_so_much() {
    for computation in [u64::MAX, u64::MAX - 2_000_000, u64::MAX / 6 * 5] {
        let fixture = Fixture::new().await;
        fixture.server.change(|ledger| ledger.computation = Some(computation));
        let error = fixture.registrar(true).register(&registration()).await.unwrap_err();
        assert!(error.to_string().contains("MIST of SUI"), "{error}");
        assert_eq!((fixture.executed(), fixture.journal()), (0, 0));
        assert_eq!(fixture.asked.load(Ordering::Relaxed), 0, "nobody is asked for so much");
    }
}

#[tokio::test]
async fn after_a_crash_the_same_transaction_is_seen_to_its_end() {
    let fixture = Fixture::new().await;
    // Executed, but the connection is lost before anybody hears of it.
    fixture.server.change(|ledger| ledger.mute = true);
    let error = fixture.registrar(true).register(&registration()).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Unavailable);
    assert!(error.to_string().contains("run it again"), "{error}");
    assert_eq!((fixture.executed(), fixture.journal()), (1, 1));

    fixture.server.change(|ledger| ledger.mute = false);
    let registered = fixture.registrar(true).register(&registration()).await.unwrap();
    assert_eq!(registered.object, ObjectId([0xb1; 32]));
    assert_eq!((fixture.executed(), fixture.journal()), (1, 0));
    assert_eq!(fixture.asked.load(Ordering::Relaxed), 1, "it was confirmed before the crash");
}

#[tokio::test]
async fn what_can_never_be_executed_any_more_is_made_anew() {
    let fixture = Fixture::new().await;
    // Signed and written down, but never sent; then something else used the gas coin.
    fixture.server.change(|ledger| ledger.refuses = Some("no thanks".to_owned()));
    let error = fixture.registrar(true).register(&registration()).await.unwrap_err();
    assert_eq!(error.kind, ChainErrorKind::Refused);
    assert_eq!((fixture.executed(), fixture.journal()), (0, 0), "refused: nothing to keep");

    let account = key().public_key().derive_address();
    let journal = journal::Journal::new(Some(fixture.state.path()), account);
    let mut old = recorded_transaction("tx-5");
    old.sender = account;
    old.gas_payment.budget += 1;
    let purpose = format!("register blob {} for 4 epochs, permanent", registration().blob);
    let signature = key().sign_transaction(&old).unwrap().to_bytes();
    journal.keep(&journal::Entry { purpose, transaction: old, signature }).unwrap();
    assert_eq!(fixture.journal(), 1);
    let registered = fixture.registrar(true).register(&registration()).await.unwrap();
    assert_eq!(registered.object, ObjectId([0xb1; 32]));
    assert_eq!((fixture.executed(), fixture.journal()), (1, 0));
}

#[tokio::test]
async fn an_object_that_changed_meanwhile_is_no_reason_to_fail() {
    let fixture = Fixture::new().await;
    fixture.server.change(|ledger| {
        ledger.refuses = Some("object version 3 is unavailable for consumption".to_owned());
    });
    fixture.registrar(true).register(&registration()).await.unwrap();
    assert_eq!(fixture.executed(), 1);
    assert_eq!(fixture.asked.load(Ordering::Relaxed), 1, "not asked twice for the same cost");
}

fn write_private(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn keys_are_read_in_all_their_forms_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let bech32 = key().to_suiprivkey().unwrap();
    let keystore = serde_json::to_string(&["AQ==", &key().to_base64()]).unwrap();
    let account = "0xa0ccc8bcc83f6c628340134f8546a21e0618fd1aaa02432bba454c4a2c2233da";
    for text in [
        bech32.clone(),
        format!("{bech32}\n"),
        key().to_base64(),
        key().to_pem().unwrap(),
        keystore,
    ] {
        write_private(&path, &text, 0o600);
        let signer = Signer::open(&KeySource::File(path.clone())).unwrap();
        assert_eq!(signer.account().to_string(), account);
        assert!(!format!("{signer:?}").contains(&bech32[12..40]));
    }
    write_private(&path, &bech32, 0o640);
    let error = Signer::open(&KeySource::File(path.clone())).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    let broken = bech32.replace('q', "p");
    write_private(&path, &broken, 0o600);
    let error = format!("{:?}", Signer::open(&KeySource::File(path.clone())).unwrap_err());
    assert!(error.contains("not an ed25519 key") && !error.contains(&broken[12..30]), "{error}");
    let missing = KeySource::File(directory.path().join("none"));
    assert!(Signer::open(&missing).is_err());
    let unset = KeySource::Variable("HAULOUT_SUI_TEST_UNSET".to_owned());
    let error = Signer::open(&unset).unwrap_err().to_string();
    assert!(error.contains("variable HAULOUT_SUI_TEST_UNSET"), "{error}");
}

#[tokio::test]
async fn another_program_may_sign() {
    let transaction = recorded_transaction("tx-5");
    let account = ObjectId(key().public_key().derive_address().into_inner());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("signature");
    let signature = key().sign_transaction(&transaction).unwrap();
    std::fs::write(&path, data_encoding::BASE64.encode(&signature.to_bytes())).unwrap();
    let command = |argv: &[&str]| {
        let argv = argv.iter().map(|&part| part.to_owned()).collect();
        Signer::open(&KeySource::Command { argv, account }).unwrap()
    };
    let shown = path.to_str().unwrap();
    let signer = command(&["cat", shown]);
    assert_eq!(signer.account(), account);
    assert_eq!(signer.sign(&transaction).await.unwrap(), signature);

    // A signature of something else, no signature, an exit code, no program.
    let other = recorded_transaction("tx-8");
    let error = signer.sign(&other).await.unwrap_err().to_string();
    assert!(error.contains("does not fit the transaction"), "{error}");
    let error = command(&["echo", "secret"]).sign(&other).await.unwrap_err().to_string();
    assert!(error.contains("not a signature") && !error.contains("secret"), "{error}");
    assert!(command(&["false"]).sign(&other).await.is_err());
    assert!(command(&["/no/such/program"]).sign(&other).await.is_err());
    let empty = KeySource::Command { argv: Vec::new(), account };
    assert!(Signer::open(&empty).is_err());
    // It gets the transaction on its standard input.
    let script = format!("read line; test \"$line\" = \"$0\" && cat {shown}");
    let bytes = data_encoding::BASE64.encode(&bcs::to_bytes(&transaction).unwrap());
    command(&["sh", "-c", &script, &bytes]).sign(&transaction).await.unwrap();
}

#[test]
fn addresses_are_the_same_bytes() {
    assert_eq!(address(ObjectId([3; 32])), Address::new([3; 32]));
}
