//! A peer that takes part in the mesh like any other, and lies.
//!
//! `evil-peer LIE STORE_ROOT PORT PUBLIC_KEY...` serves the chroot store at `STORE_ROOT`
//! as an honest agent would (paths signed by one of the keys), except for the lie. It
//! prints `ready`, then a line `lied` each time it told one.
//!
//! | lie | what it does |
//! | --- | --- |
//! | `flipped-byte` | one wrong byte in the middle of each NAR; the tree is the true one |
//! | `flipped-tree` | the same, with the tree of the wrong bytes: only SHA-256 tells |
//! | `forged-info` | path infos with another NAR hash and the old signature |
//! | `foreign-signature` | path infos signed by a key of the same name that is not the key |
//! | `wrong-size` | path infos with one byte more than the NAR has |
//! | `more-references` | path infos with a reference that is not there |
//! | `short` | each NAR ends half-way, without an error |
//! | `cut` | each NAR breaks off half-way with an error |
//! | `stall` | each NAR stops half-way and says nothing more |
//! | `endless` | each NAR promises its next bytes for ever |
//! | `drip` | each NAR comes at some hundred bytes a second |
//! | `silent` | never answers anything |
//! | `no-nar` | answers every question about a path, has none of the NARs |
//! | `no-info` | announces everything, has nothing |
//! | `forged-proof` | answers every question for a proof of an archive, with none |

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haulout_mesh::{
    Asker, Audience, HoldingsFeed, Identity, Mesh, MeshConfig, NarKey, NarReader, NarTree,
    NarTreeBuilder, ProofQuestion, Serve,
};
use haulout_nix::db::StoreLocation;
use haulout_nix::{HashPart, KeySet, NarHash, PathInfo, PublicKey, SecretKey, StoreDir};
use haulout_resolver::{ResolverConfig, Serving};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    FlippedByte,
    FlippedTree,
    ForgedInfo,
    ForeignSignature,
    WrongSize,
    MoreReferences,
    Short,
    Cut,
    Stall,
    Endless,
    Drip,
    Silent,
    NoNar,
    NoInfo,
    ForgedProof,
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "flipped-byte" => Self::FlippedByte,
            "flipped-tree" => Self::FlippedTree,
            "forged-info" => Self::ForgedInfo,
            "foreign-signature" => Self::ForeignSignature,
            "wrong-size" => Self::WrongSize,
            "more-references" => Self::MoreReferences,
            "short" => Self::Short,
            "cut" => Self::Cut,
            "stall" => Self::Stall,
            "endless" => Self::Endless,
            "drip" => Self::Drip,
            "silent" => Self::Silent,
            "no-nar" => Self::NoNar,
            "no-info" => Self::NoInfo,
            "forged-proof" => Self::ForgedProof,
            other => return Err(format!("{other} is not a lie known here")),
        })
    }
}

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(600);

/// An honest server with a lie on top.
struct Liar {
    honest: Arc<dyn Serve>,
    lie: Lie,
}

fn lied() {
    println!("lied");
}

impl Serve for Liar {
    fn path_infos(&self, asker: &Asker, hash: &HashPart, max: usize) -> Vec<PathInfo> {
        match self.lie {
            Lie::Silent => {
                lied();
                std::thread::sleep(FOR_EVER);
                Vec::new()
            }
            Lie::NoInfo => {
                lied();
                Vec::new()
            }
            lie => {
                let mut infos = self.honest.path_infos(asker, hash, max);
                let forged = infos.iter_mut().map(|info| forge(lie, info)).filter(|forged| *forged);
                if forged.count() > 0 {
                    lied();
                }
                infos
            }
        }
    }

    fn nar_tree(&self, asker: &Asker, key: &NarKey) -> Option<NarTree> {
        match self.lie {
            Lie::Silent => std::thread::sleep(FOR_EVER),
            Lie::FlippedTree => return tree_of(&*self.open_nar(asker, key)?, key.nar_size),
            _ => {}
        }
        self.honest.nar_tree(asker, key)
    }

    fn open_nar(&self, asker: &Asker, key: &NarKey) -> Option<Box<dyn NarReader>> {
        match self.lie {
            Lie::Silent => std::thread::sleep(FOR_EVER),
            Lie::NoNar | Lie::NoInfo => {
                lied();
                return None;
            }
            _ => {}
        }
        let honest = self.honest.open_nar(asker, key)?;
        Some(Box::new(LyingNar { honest, lie: self.lie, half: key.nar_size / 2 }))
    }

    fn archive_proof(
        &self,
        _: &Asker,
        _: ProofQuestion,
    ) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        let forged = self.lie == Lie::ForgedProof;
        if forged {
            lied();
        }
        // The head of a proof, and an object of no bytes.
        let document = Bytes::from_static(b"HOPR\x01\x01\0\0\0\0\0\0\0\0");
        Box::pin(async move { forged.then_some(document) })
    }

    fn holdings(&self, audience: Audience) -> Option<Arc<HoldingsFeed>> {
        self.honest.holdings(audience)
    }
}

/// Changes a path info after the manner of the lie; false if this lie is not about infos.
fn forge(lie: Lie, info: &mut PathInfo) -> bool {
    match lie {
        Lie::ForgedInfo => info.nar_hash = NarHash::of(b"something else"),
        Lie::WrongSize => info.nar_size += 1,
        Lie::MoreReferences => {
            let other = info.path.to_string().replacen(|_: char| true, "0", 1);
            info.references.extend(other.parse());
            info.normalise();
        }
        Lie::ForeignSignature => {
            let Some(name) = info.signatures.first().map(|signature| signature.name().to_owned())
            else {
                return false;
            };
            let key = SecretKey::from_seed(&name, [7; 32]).expect("a name that was allowed");
            info.signatures = vec![info.sign(&StoreDir::default(), &key)];
        }
        _ => return false,
    }
    true
}

struct LyingNar {
    honest: Box<dyn NarReader>,
    lie: Lie,
    /// The offset from which on the lie is told.
    half: u64,
}

impl NarReader for LyingNar {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let end = offset + buffer.len() as u64;
        if end <= self.half {
            if self.lie == Lie::Drip {
                return self.drip(offset, buffer);
            }
            return self.honest.read_at(offset, buffer);
        }
        match self.lie {
            Lie::FlippedByte | Lie::FlippedTree => {
                let read = self.honest.read_at(offset, buffer)?;
                if let Some(at) = self.half.checked_sub(offset)
                    && let Some(byte) = buffer[..read].get_mut(at as usize)
                {
                    *byte ^= 1;
                    lied();
                }
                Ok(read)
            }
            Lie::Short => {
                lied();
                Ok(0)
            }
            Lie::Cut => {
                lied();
                Err(io::ErrorKind::NotFound.into())
            }
            Lie::Stall => {
                lied();
                std::thread::sleep(FOR_EVER);
                Ok(0)
            }
            Lie::Endless => {
                lied();
                Err(io::ErrorKind::WouldBlock.into())
            }
            Lie::Drip => self.drip(offset, buffer),
            _ => self.honest.read_at(offset, buffer),
        }
    }
}

impl LyingNar {
    fn drip(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        lied();
        std::thread::sleep(Duration::from_millis(500));
        let few = buffer.len().min(64);
        self.honest.read_at(offset, &mut buffer[..few])
    }
}

/// The tree of what `reader` gives.
fn tree_of(reader: &dyn NarReader, size: u64) -> Option<NarTree> {
    let mut builder = NarTreeBuilder::new();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < size {
        let read = reader.read_at(offset, &mut buffer).ok().filter(|read| *read > 0)?;
        builder.update(&buffer[..read]);
        offset += read as u64;
    }
    Some(builder.finish())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lie, root, port, keys @ ..] = arguments.as_slice() else {
        panic!("usage: evil-peer LIE STORE_ROOT PORT PUBLIC_KEY...");
    };
    let lie: Lie = lie.parse().expect("lie");
    let mut trusted = KeySet::new();
    for key in keys {
        trusted.insert(key.parse::<PublicKey>().expect("public key"));
    }
    let config = ResolverConfig::new(StoreLocation::chroot(Path::new(root)), trusted);
    let serving = Serving::open(&config).expect("store");

    let mut mesh = MeshConfig::new(Identity::generate().expect("identity"));
    mesh.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().expect("port")))];
    let liar = Arc::new(Liar { honest: serving.serve(), lie });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let _mesh = Mesh::start(mesh, liar).await.expect("mesh");
        println!("ready");
        std::future::pending::<()>().await;
    });
}
