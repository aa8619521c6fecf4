//! Who signs: a key from a file or a variable, or another program.

use std::{fmt, io::Write, path::PathBuf, process::Stdio, time::Duration};

use sui_crypto::{SuiSigner, SuiVerifier, ed25519::Ed25519PrivateKey, simple::SimpleVerifier};
use sui_sdk_types::{Address, Transaction, UserSignature};

use super::TxError;
use crate::{ObjectId, files, object_id::object_id};

/// Bytes of a key file: one key, or a keystore of a few dozen.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a signer command's answer: the longest kind of signature has a few kB.
const SIGNATURE_BYTES_MAX: usize = 64 * 1024;
/// A person may have to press a button.
const SIGNER_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the key is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file with one key (`suiprivkey…`, PEM, or the base64 of `sui keytool`), or a
    /// `sui.keystore` whose first ed25519 key is taken.
    File(PathBuf),
    /// An environment variable with the same, by name.
    Variable(String),
    /// A program that gets the transaction (BCS, base64, one line) on its standard input
    /// and writes the signature (as the chain takes it, base64) to its standard output.
    /// The account is the one it signs for.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// The account.
        account: ObjectId,
    },
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            // Arguments may be secrets.
            Self::Command { argv, .. } => {
                write!(f, "command {}", argv.first().map_or("", String::as_str))
            }
        }
    }
}

/// Signs transactions of one account.
pub struct Signer {
    account: Address,
    with: With,
}

enum With {
    Key(Box<Ed25519PrivateKey>),
    Command(Vec<String>),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("account", &self.account.to_string()).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the key.
    ///
    /// # Errors
    /// No key there, one of another kind, or a file that others can read.
    pub fn open(source: &KeySource) -> Result<Self, TxError> {
        let failed = |reason: String| TxError::Key { origin: format!("in {source:?}"), reason };
        let text = match source {
            KeySource::Command { argv, account } => {
                if argv.is_empty() {
                    return Err(failed("the command is empty".to_owned()));
                }
                return Ok(Self {
                    account: crate::object_id::address(*account),
                    with: With::Command(argv.clone()),
                });
            }
            KeySource::Variable(name) => {
                std::env::var(name).map_err(|_| failed("it is not set, or not text".to_owned()))?
            }
            KeySource::File(path) => {
                check_private(path).map_err(&failed)?;
                let bytes = files::read(path, KEY_FILE_BYTES_MAX)
                    .map_err(|error| failed(error.to_string()))?
                    .ok_or_else(|| failed("there is no such file".to_owned()))?;
                String::from_utf8(bytes).map_err(|_| failed("it is not text".to_owned()))?
            }
        };
        let key = parse_key(&text).ok_or_else(|| {
            failed(
                "not an ed25519 key: expected suiprivkey1…, a PEM file, or a line of a sui.keystore"
                    .to_owned(),
            )
        })?;
        Ok(Self::from_key(key))
    }

    /// From a key in memory.
    #[must_use]
    pub fn from_key(key: Ed25519PrivateKey) -> Self {
        Self { account: key.public_key().derive_address(), with: With::Key(Box::new(key)) }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> ObjectId {
        object_id(self.account)
    }

    pub(super) fn address(&self) -> Address {
        self.account
    }

    /// Signs.
    ///
    /// # Errors
    /// The signer command failed, or its signature does not verify.
    pub async fn sign(&self, transaction: &Transaction) -> Result<UserSignature, TxError> {
        match &self.with {
            With::Key(key) => key.sign_transaction(transaction).map_err(|_| TxError::Key {
                origin: "in memory".to_owned(),
                reason: "it does not sign".to_owned(),
            }),
            With::Command(argv) => {
                let (argv, transaction) = (argv.clone(), transaction.clone());
                let signed = tokio::task::spawn_blocking(move || run_signer(&argv, &transaction));
                signed.await.map_err(|error| TxError::Build(error.to_string()))?
            }
        }
    }
}

/// Refuses a key file that other accounts of the machine can read.
#[cfg(unix)]
fn check_private(path: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) => return Err(error.to_string()),
    };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!(
        "other users can read or change it (mode {:03o}): chmod 600 it, and take a new key if \
         it was exposed",
        mode & 0o777
    ))
}

#[cfg(not(unix))]
fn check_private(_: &std::path::Path) -> Result<(), String> {
    Ok(())
}

/// A key in any of its forms. The parser's own words are thrown away: they may quote it.
fn parse_key(text: &str) -> Option<Ed25519PrivateKey> {
    let text = text.trim();
    if text.starts_with('[') {
        let keys: Vec<String> = serde_json::from_str(text).ok()?;
        return keys.iter().find_map(|key| Ed25519PrivateKey::from_base64(key).ok());
    }
    if text.starts_with("-----BEGIN") {
        return Ed25519PrivateKey::from_pem(text).ok();
    }
    Ed25519PrivateKey::from_suiprivkey(text).or_else(|_| Ed25519PrivateKey::from_base64(text)).ok()
}

fn run_signer(argv: &[String], transaction: &Transaction) -> Result<UserSignature, TxError> {
    let Some((program, arguments)) = argv.split_first() else {
        let reason = "the command is empty".to_owned();
        return Err(TxError::Signer { command: String::new(), reason });
    };
    let failed = |reason: &dyn fmt::Display| TxError::Signer {
        command: program.clone(),
        reason: reason.to_string(),
    };
    let bytes = bcs::to_bytes(transaction).map_err(|error| failed(&error))?;
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let line = format!("{}\n", data_encoding::BASE64.encode(&bytes));
    if let Some(mut stdin) = child.stdin.take() {
        // A signer that does not read all of it says why with its exit code.
        let _ = stdin.write_all(line.as_bytes());
    }
    let answer = read_answer(&mut child).map_err(|reason| failed(&reason))?;
    let text = String::from_utf8(answer).map_err(|_| failed(&"its answer is not text"))?;
    let signature = UserSignature::from_base64(text.trim())
        .map_err(|_| failed(&"its answer is not a signature in base64"))?;
    if let UserSignature::Simple(simple) = &signature {
        SimpleVerifier
            .verify_transaction(transaction, &UserSignature::Simple(simple.clone()))
            .map_err(|_| failed(&"its signature does not fit the transaction"))?;
    }
    Ok(signature)
}

/// Standard output of a child that must end by itself, and well.
fn read_answer(child: &mut std::process::Child) -> Result<Vec<u8>, String> {
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            let limit = SIGNATURE_BYTES_MAX as u64;
            std::io::Read::read_to_end(&mut std::io::Read::take(stdout, limit), &mut answer)?;
        }
        Ok::<_, std::io::Error>(answer)
    });
    let started = std::time::Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if started.elapsed() > SIGNER_TIMEOUT => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no signature within {} s", SIGNER_TIMEOUT.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let answer = reader.join().map_err(|_| "its answer cannot be read".to_owned())?;
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    answer.map_err(|error| error.to_string())
}
