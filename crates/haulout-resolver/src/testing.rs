//! Peers that play by a script, for tests.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use haulout_mesh::{NarKey, NarTree, NarTreeBuilder};
use haulout_nix::{HashPart, KeySet, NarHash, PathInfo, SecretKey, StoreDir, StorePath};
use haulout_swarm::fault::Severity;
use haulout_swarm::{Fault, PeerId};
use tokio::time::sleep;

use crate::peers::{Answer, Chunks, Patience, PeerError, Peers};
use crate::trust::Trust;

/// Bytes per piece, as the mesh sends them.
const PIECE: u64 = 256 << 10;

/// How a peer behaves when a NAR is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Gives {
    /// Every byte, as it is.
    #[default]
    Honest,
    /// One bit is flipped at this offset.
    FlipAt(u64),
    /// The connection dies when it gets to this offset.
    DiesAt(u64),
    /// Nothing comes any more from this offset on.
    SilentAt(u64),
    /// Says it is complete at this offset.
    ShortAt(u64),
    /// Goes on after the end.
    Endless,
    /// No.
    No,
    /// Busy for the first so many times it is asked.
    BusyFor(usize),
    /// One piece in this time.
    Slow(Duration),
    /// Bytes of another NAR, the same from everybody who behaves so, with
    /// the tree that belongs to them.
    Other,
}

/// How a peer behaves when a tree is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Tree {
    /// The tree of what it gives (without its faults).
    #[default]
    Matching,
    /// The tree of another NAR than it gives.
    Wrong,
    /// No.
    No,
    /// No answer at all.
    Silent,
}

/// One peer of the script.
#[derive(Clone, Default)]
pub(crate) struct Actor {
    pub(crate) gives: Gives,
    pub(crate) tree: Tree,
    /// Until it has computed a tree.
    pub(crate) tree_delay: Duration,
    /// Until it answers any question.
    pub(crate) delay: Duration,
    /// Its packets arrive while it makes us wait.
    pub(crate) alive: bool,
    /// Announces nothing.
    pub(crate) undeclared: bool,
    /// Answers to questions for path infos; by default what the script knows.
    pub(crate) infos: Option<Vec<PathInfo>>,
}

impl Actor {
    pub(crate) fn gives(gives: Gives) -> Self {
        Self { gives, ..Self::default() }
    }
}

/// All peers of a test and what they were seen to do.
pub(crate) struct Script {
    pub(crate) actors: Mutex<Vec<Actor>>,
    nars: Mutex<HashMap<NarHash, Bytes>>,
    infos: Mutex<HashMap<HashPart, PathInfo>>,
    blamed: Mutex<Vec<(usize, Fault)>>,
    /// Questions asked: kind and peer.
    asked: Mutex<Vec<(&'static str, usize)>>,
    given: Mutex<HashMap<usize, u64>>,
}

pub(crate) fn id(actor: usize) -> PeerId {
    PeerId::from_bytes([u8::try_from(actor).unwrap() + 1; 32])
}

fn actor_of(peer: PeerId) -> usize {
    usize::from(peer.as_bytes()[0]) - 1
}

pub(crate) fn key() -> SecretKey {
    SecretKey::from_seed("test-1", [7; 32]).unwrap()
}

pub(crate) fn trust() -> Trust {
    let mut keys = KeySet::new();
    keys.insert(key().public_key().clone());
    Trust { store_dir: StoreDir::default(), keys }
}

/// A path with a NAR of `size` pseudo-random bytes.
pub(crate) fn sample(name: &str, size: usize) -> (PathInfo, Bytes) {
    let mut data = vec![0; size];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut data);
    let data = Bytes::from(data);
    let hash =
        HashPart::from_bytes(blake3::hash(name.as_bytes()).as_bytes()[..20].try_into().unwrap());
    let path: StorePath = format!("{hash}-{name}").parse().unwrap();
    let mut info = PathInfo {
        path,
        nar_hash: NarHash::of(&data),
        nar_size: size as u64,
        references: Vec::new(),
        deriver: None,
        signatures: Vec::new(),
        ca: None,
    };
    info.signatures = vec![info.sign(&StoreDir::default(), &key())];
    (info, data)
}

/// What [`Gives::Other`] gives for a NAR.
fn other(data: &Bytes) -> Bytes {
    data.iter().map(|byte| !byte).collect::<Vec<u8>>().into()
}

impl Script {
    pub(crate) fn new(actors: Vec<Actor>) -> Arc<Self> {
        Arc::new(Self {
            actors: Mutex::new(actors),
            nars: Mutex::default(),
            infos: Mutex::default(),
            blamed: Mutex::default(),
            asked: Mutex::default(),
            given: Mutex::default(),
        })
    }

    /// Peers that give NARs in these ways.
    pub(crate) fn giving(gives: &[Gives]) -> Arc<Self> {
        Self::new(gives.iter().map(|gives| Actor::gives(*gives)).collect())
    }

    pub(crate) fn add(&self, info: &PathInfo, data: &Bytes) {
        self.nars.lock().unwrap().insert(info.nar_hash, data.clone());
        self.infos.lock().unwrap().insert(info.path.hash_part(), info.clone());
    }

    /// Who was blamed for what, in order.
    pub(crate) fn blamed(&self) -> Vec<(usize, Fault)> {
        self.blamed.lock().unwrap().clone()
    }

    /// The peers asked such a question, in order.
    pub(crate) fn asked(&self, kind: &str) -> Vec<usize> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|(what, _)| *what == kind)
            .map(|(_, who)| *who)
            .collect()
    }

    /// NAR bytes a peer gave.
    pub(crate) fn given(&self, actor: usize) -> u64 {
        self.given.lock().unwrap().get(&actor).copied().unwrap_or(0)
    }

    fn banned(&self, actor: usize) -> bool {
        let blamed = self.blamed.lock().unwrap();
        blamed.iter().any(|(who, fault)| *who == actor && fault.severity() == Severity::Ban)
    }

    fn note(&self, kind: &'static str, peer: PeerId) -> Actor {
        let actor = actor_of(peer);
        self.asked.lock().unwrap().push((kind, actor));
        self.actors.lock().unwrap()[actor].clone()
    }

    fn listed(&self, undeclared: bool) -> Vec<PeerId> {
        let actors = self.actors.lock().unwrap();
        let here = |at: &usize| actors[*at].undeclared == undeclared && !self.banned(*at);
        (0..actors.len()).filter(here).map(id).collect()
    }
}

impl Peers for Script {
    fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        if self.infos.lock().unwrap().contains_key(hash) { self.listed(false) } else { Vec::new() }
    }

    fn undeclared(&self) -> Vec<PeerId> {
        self.listed(true)
    }

    fn path_infos(
        &self,
        peer: PeerId,
        hash: HashPart,
        _: usize,
        patience: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>> {
        let actor = self.note("info", peer);
        let known = self.infos.lock().unwrap().get(&hash).cloned();
        Box::pin(async move {
            let infos = actor.infos.unwrap_or_else(|| known.into_iter().collect());
            let patience = if actor.alive { patience.total } else { patience.silent };
            if tokio::time::timeout(patience, sleep(actor.delay)).await.is_err() {
                return Err(PeerError::Silent);
            }
            if infos.is_empty() { Err(PeerError::No) } else { Ok(infos) }
        })
    }

    fn nar_tree(&self, peer: PeerId, key: NarKey) -> Answer<Result<NarTree, PeerError>> {
        let actor = self.note("tree", peer);
        let data = self.nars.lock().unwrap().get(&key.nar_hash).cloned();
        Box::pin(async move {
            sleep(actor.delay + actor.tree_delay).await;
            let Some(data) = data else { return Err(PeerError::No) };
            let of_other = (actor.gives == Gives::Other) != (actor.tree == Tree::Wrong);
            let data = if of_other { other(&data) } else { data };
            match actor.tree {
                Tree::Matching | Tree::Wrong => {
                    let mut builder = NarTreeBuilder::new();
                    builder.update(&data);
                    Ok(builder.finish())
                }
                Tree::No => Err(PeerError::No),
                Tree::Silent => std::future::pending().await,
            }
        })
    }

    fn nar_range(
        &self,
        peer: PeerId,
        key: NarKey,
        range: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>> {
        let actor = self.note("nar", peer);
        let data = self.nars.lock().unwrap().get(&key.nar_hash).cloned();
        let given = actor_of(peer);
        let times = self.asked("nar").iter().filter(|who| **who == given).count();
        let busy = matches!(actor.gives, Gives::BusyFor(first) if times <= first);
        let delay = actor.delay;
        let stream = data.map(|data| Play {
            data: if actor.gives == Gives::Other { other(&data) } else { data },
            at: range.start,
            end: range.end,
            gives: actor.gives,
        });
        *self.given.lock().unwrap().entry(given).or_default() += range.end - range.start;
        Box::pin(async move {
            sleep(delay).await;
            match stream {
                Some(_) if busy => Err(PeerError::Busy),
                Some(stream) if stream.gives != Gives::No => {
                    Ok(Box::new(stream) as Box<dyn Chunks>)
                }
                _ => Err(PeerError::No),
            }
        })
    }

    fn blame(&self, peer: PeerId, fault: Fault) {
        self.blamed.lock().unwrap().push((actor_of(peer), fault));
    }

    fn hedge_delay(&self) -> Duration {
        Duration::from_millis(50)
    }
}

struct Play {
    data: Bytes,
    at: u64,
    end: u64,
    gives: Gives,
}

impl Play {
    async fn step(&mut self) -> Result<Option<Bytes>, PeerError> {
        if let Gives::Slow(time) = self.gives {
            sleep(time).await;
        }
        if self.at >= self.end {
            return Ok((self.gives == Gives::Endless).then(|| Bytes::from_static(&[0; 4096])));
        }
        // Pieces end at multiples of their size, like the mesh's frames.
        let mut to = (self.at / PIECE * PIECE + PIECE).min(self.end);
        match self.gives {
            Gives::DiesAt(at) | Gives::SilentAt(at) | Gives::ShortAt(at) if to > at => {
                to = at.max(self.at);
            }
            _ => {}
        }
        if to == self.at {
            return match self.gives {
                Gives::DiesAt(_) => Err(PeerError::Lost),
                Gives::SilentAt(_) => {
                    // As the mesh does: it counts bytes, not pieces.
                    sleep(Duration::from_secs(1)).await;
                    Err(PeerError::Silent)
                }
                _ => Ok(None),
            };
        }
        let piece =
            self.data.slice(usize::try_from(self.at).unwrap()..usize::try_from(to).unwrap());
        let piece = match self.gives {
            Gives::FlipAt(at) if (self.at..to).contains(&at) => {
                let mut wrong = piece.to_vec();
                wrong[usize::try_from(at - self.at).unwrap()] ^= 4;
                wrong.into()
            }
            _ => piece,
        };
        self.at = to;
        Ok(Some(piece))
    }
}

impl Chunks for Play {
    fn next(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, PeerError>> + Send + '_>> {
        Box::pin(self.step())
    }
}
