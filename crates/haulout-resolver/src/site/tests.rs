//! Several engines in one process, with an outside that counts what it gives.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use haulout_mesh::{Asker, NarKey, NarTree, SiteEnd, SiteFrame, SitePiece};
use haulout_nix::{HashPart, PathInfo};
use haulout_swarm::site::{Away, Homes, SEGMENT_BYTES, SiteKind, Standing, Turn};
use haulout_swarm::{Fault, Now, PeerId};
use tokio::time::{sleep, timeout};

use super::*;
use crate::peers::{Answer, Chunks, Patience, PeerError};

const OUTSIDE: OutsideId = OutsideId::from_bytes([1; 32]);

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn content(range: Range<u64>) -> Vec<u8> {
    range.map(byte).collect()
}

fn object(n: u8, size: u64) -> SiteObject {
    SiteObject {
        key: SiteKey { kind: SiteKind::UpstreamFile, id: [n; 32] },
        size: Cut::new(size),
        outside: OUTSIDE,
        descriptor: Bytes::from_static(b"it"),
    }
}

/// The world outside.
#[derive(Default)]
struct World {
    given: AtomicU64,
    fetches: AtomicU64,
    absent: bool,
    private: bool,
    pause: Duration,
}

struct Place(Arc<World>);

impl Outside for Place {
    fn ids(&self) -> Vec<OutsideId> {
        vec![OUTSIDE]
    }

    fn fetch(
        &self,
        _: SiteObject,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'static, Result<Body, OutsideError>> {
        let world = Arc::clone(&self.0);
        world.fetches.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(world.pause).await;
            if world.absent {
                return Err(OutsideError::Absent);
            }
            let mut at = range.clone().map_or(0, |range| range.start);
            let end = range.map_or(5_000, |range| range.end);
            let mut pieces = Vec::new();
            while at < end {
                let next = (at + 100_000).min(end);
                pieces.push(at..next);
                at = next;
            }
            let body = stream::iter(pieces).then(move |piece| {
                let world = Arc::clone(&world);
                async move {
                    sleep(world.pause / 10).await;
                    world.given.fetch_add(piece.end - piece.start, Ordering::Relaxed);
                    Ok(Bytes::from(content(piece)))
                }
            });
            Ok(body.boxed() as Body)
        }
        .boxed()
    }

    fn may_give(&self, _: &SiteObject, to: Membership) -> BoxFuture<'static, bool> {
        let private = self.0.private;
        async move { !private || to == Membership::Member }.boxed()
    }
}

/// Everybody, by key.
#[derive(Default)]
pub(super) struct Lan {
    sites: Mutex<Vec<Site>>,
    homes: Mutex<Homes>,
    pub(super) dead: Mutex<HashSet<PeerId>>,
    /// Who was there before the others.
    elders: Mutex<HashSet<PeerId>>,
    pub(super) liars: Mutex<HashSet<PeerId>>,
    /// Who announced which prefix.
    pub(super) held: Mutex<HashSet<(u32, PeerId)>>,
    pub(super) blamed: Mutex<Vec<(PeerId, Fault)>>,
}

struct Peer {
    lan: Arc<Lan>,
    me: PeerId,
    sequence: AtomicU64,
}

pub(super) fn id(n: usize) -> PeerId {
    PeerId::from_bytes([n as u8 + 1; 32])
}

impl Peers for Peer {
    fn who_has(&self, hash: &HashPart) -> Vec<PeerId> {
        let held = lock(&self.lan.held);
        let others =
            held.iter().filter(|(prefix, peer)| *prefix == hash.prefix() && *peer != self.me);
        others.map(|(_, peer)| *peer).collect()
    }
    fn undeclared(&self) -> Vec<PeerId> {
        Vec::new()
    }
    fn path_infos(
        &self,
        _: PeerId,
        _: HashPart,
        _: usize,
        _: Patience,
    ) -> Answer<Result<Vec<PathInfo>, PeerError>> {
        async { Err(PeerError::No) }.boxed()
    }
    fn nar_tree(&self, _: PeerId, _: NarKey) -> Answer<Result<NarTree, PeerError>> {
        async { Err(PeerError::No) }.boxed()
    }
    fn nar_range(
        &self,
        _: PeerId,
        _: NarKey,
        _: Range<u64>,
    ) -> Answer<Result<Box<dyn Chunks>, PeerError>> {
        async { Err(PeerError::No) }.boxed()
    }
    fn blame(&self, peer: PeerId, fault: Fault) {
        lock(&self.lan.blamed).push((peer, fault));
        lock(&self.lan.homes).gone(&peer);
    }
    fn hedge_delay(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn me(&self) -> PeerId {
        self.me
    }
    fn homes(&self, segment: &SegmentKey, outside: u32, most: usize) -> Vec<PeerId> {
        lock(&self.lan.homes).ranking(segment, outside, most, |_| true)
    }
    fn others(&self, outside: u32) -> usize {
        lock(&self.lan.homes).others(&self.me, outside)
    }
    fn away(&self) -> Vec<Away> {
        let banned: Vec<PeerId> = lock(&self.lan.blamed).iter().map(|(peer, _)| *peer).collect();
        let dead = lock(&self.lan.dead);
        let gone = dead.iter().map(|peer| Away { peer: *peer, banned: false });
        banned.into_iter().map(|peer| Away { peer, banned: true }).chain(gone).collect()
    }
    fn turns(&self, ranking: &[PeerId]) -> Vec<Turn> {
        let elders = lock(&self.lan.elders);
        let turn = |peer: &PeerId| Turn { peer: *peer, elder: elders.contains(peer), young: false };
        ranking.iter().map(turn).collect()
    }
    fn set_standing(&self, willing: bool, outsides: &[u32]) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        let standing = Standing { sequence, willing, outsides: outsides.iter().copied().collect() };
        lock(&self.lan.homes).told(self.me, standing, Now::START);
    }
    fn site(
        &self,
        peer: PeerId,
        request: SiteRequest,
    ) -> BoxStream<'static, Result<SiteFrame, PeerError>> {
        let (lan, me) = (Arc::clone(&self.lan), self.me);
        let index = usize::from(peer.as_bytes()[0]) - 1;
        let asker =
            Asker { peer: me, membership: Membership::Stranger, addr: ([127, 0, 0, 1], 1).into() };
        let source = lock(&lan.sites)[index].serve(&asker, request);
        stream::unfold(Some(source), move |source| {
            let lan = Arc::clone(&lan);
            async move {
                let mut source = source?;
                let piece = timeout(Duration::from_millis(400), source.next()).await;
                if lock(&lan.dead).contains(&peer) {
                    std::future::pending::<()>().await;
                }
                let frame = match piece {
                    Err(_) => SiteFrame::Waiting,
                    Ok(SitePiece::End(end)) => SiteFrame::End(end),
                    Ok(SitePiece::Bytes(bytes)) if lock(&lan.liars).contains(&peer) => {
                        let mut wrong = bytes.to_vec();
                        wrong[bytes.len() / 2] ^= 1;
                        SiteFrame::Bytes(wrong.into())
                    }
                    Ok(SitePiece::Bytes(bytes)) => SiteFrame::Bytes(bytes),
                };
                Some((Ok(frame), Some(source)))
            }
        })
        .boxed()
    }
}

/// `count` agents that know no place outside.
pub(super) fn lan_of(count: usize) -> Arc<Lan> {
    lan_with_memory(count, MEMORY_BYTES)
}

fn lan_with_memory(count: usize, memory: u64) -> Arc<Lan> {
    let lan = Arc::new(Lan::default());
    for n in 0..count {
        let site = Site::new(Arc::default(), true, memory);
        let peer = Peer { lan: Arc::clone(&lan), me: id(n), sequence: AtomicU64::new(0) };
        site.set_peers(Arc::new(peer));
        lock(&lan.sites).push(site);
    }
    lan
}

fn lan(count: usize, world: World) -> (Arc<Lan>, Arc<World>) {
    attached(lan_of(count), world)
}

fn attached(lan: Arc<Lan>, world: World) -> (Arc<Lan>, Arc<World>) {
    let world = Arc::new(world);
    let count = lock(&lan.sites).len();
    for n in 0..count {
        site(&lan, n).add(Arc::new(Place(Arc::clone(&world))));
    }
    (lan, world)
}

pub(super) fn site(lan: &Lan, n: usize) -> Site {
    lock(&lan.sites)[n].clone()
}

async fn get(site: Site, object: SiteObject) -> Result<Vec<u8>, SiteError> {
    let pieces: Vec<Bytes> = site.stream(object, 0).try_collect().await?;
    Ok(pieces.concat())
}

pub(super) fn home(lan: &Lan, object: &SiteObject, index: u32) -> usize {
    let tag = object.outside.tag();
    let ranking = lock(&lan.homes).ranking(&object.key.segment(index), tag, 1, |_| true);
    usize::from(ranking[0].as_bytes()[0]) - 1
}

const SIZE: u64 = 3 * SEGMENT_BYTES + 12_345;

#[tokio::test(start_paused = true)]
async fn eight_agents_cost_one_download() {
    let (lan, world) = lan(8, World { pause: Duration::from_millis(50), ..World::default() });
    let object = object(7, SIZE);
    let all: Vec<_> = (0..8).map(|n| tokio::spawn(get(site(&lan, n), object.clone()))).collect();
    for one in all {
        assert!(one.await.unwrap().unwrap() == content(0..SIZE));
    }
    assert_eq!(world.given.load(Ordering::Relaxed), SIZE);
    assert_eq!(world.fetches.load(Ordering::Relaxed), 4);
    // A machine that comes later costs nothing.
    site(&lan, 0).forget(&object);
    assert!(get(site(&lan, 0), object.clone()).await.unwrap() == content(0..SIZE));
    let mine = (0..4).filter(|index| home(&lan, &object, *index) == 0).count() as u64;
    assert!(world.given.load(Ordering::Relaxed) <= SIZE + mine * SEGMENT_BYTES);
}

/// The machines of a fleet that comes one by one, in the order of their turns for the first segment, the home last.
fn in_order_of_coming(count: usize, object: &SiteObject) -> Vec<usize> {
    let (lan, _) = lan(count, World::default());
    let ranking =
        lock(&lan.homes).ranking(&object.key.segment(0), object.outside.tag(), count, |_| true);
    ranking.iter().rev().map(|peer| usize::from(peer.as_bytes()[0]) - 1).collect()
}

#[tokio::test(start_paused = true)]
async fn a_home_that_has_just_come_asks_who_was_it_before() {
    let object = object(11, 1_000_000);
    let order = in_order_of_coming(6, &object);
    let (lan, world) = lan(6, World { pause: Duration::from_millis(50), ..World::default() });
    // Nobody but the last two is on: the first of them is the home, and gets the object.
    let willing = |n: usize, on: bool| site(&lan, n).set_willing(on);
    order[2..].iter().for_each(|n| willing(*n, false));
    assert!(get(site(&lan, order[0]), object.clone()).await.unwrap() == content(0..1_000_000));
    assert_eq!(world.given.load(Ordering::Relaxed), 1_000_000);
    // One better placed comes after the other, is the home at once, and is asked: it has nothing of it, and knows who has.
    for (place, home) in order.iter().enumerate().skip(2) {
        willing(*home, true);
        *lock(&lan.elders) = order[..place].iter().map(|n| id(*n)).collect();
        site(&lan, order[0]).forget(&object);
        assert_eq!(self::home(&lan, &object, 0), *home);
        assert!(get(site(&lan, order[0]), object.clone()).await.unwrap() == content(0..1_000_000));
    }
    // Its own turn, and it wants it itself.
    let last = *order.last().unwrap();
    site(&lan, last).forget(&object);
    assert!(get(site(&lan, last), object.clone()).await.unwrap() == content(0..1_000_000));
    assert_eq!(world.given.load(Ordering::Relaxed), 1_000_000, "once for all of them");
}

#[tokio::test(start_paused = true)]
async fn asked_for_what_it_has_an_agent_fetches_nothing() {
    let (lan, world) = lan(3, World { pause: Duration::from_millis(100), ..World::default() });
    let object = object(12, 1_000_000);
    let asker =
        Asker { peer: id(2), membership: Membership::Stranger, addr: ([127, 0, 0, 1], 1).into() };
    let (home, other) = (home(&lan, &object, 0), (home(&lan, &object, 0) + 1) % 3);
    let ask = |n: usize| {
        let request = SiteRequest { held: true, ..object.request(0, 0, Urgency::Awaited) };
        site(&lan, n).serve(&asker, request)
    };
    assert_eq!(ask(home).next().await, SitePiece::End(SiteEnd::Refused));
    assert_eq!(world.fetches.load(Ordering::Relaxed), 0);
    // Who follows another refuses, so that nobody asks in circles; who gets it from outside gives it while it comes.
    let following = tokio::spawn(get(site(&lan, other), object.clone()));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(ask(other).next().await, SitePiece::End(SiteEnd::Refused));
    assert!(matches!(ask(home).next().await, SitePiece::Bytes(_)));
    following.await.unwrap().unwrap();
    // Complete, it gives it as well.
    assert!(matches!(ask(other).next().await, SitePiece::Bytes(_)));
    assert_eq!(world.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_home_hears_when_what_was_fetched_ahead_is_waited_for() {
    let (lan, world) = lan(2, World { pause: Duration::from_millis(500), ..World::default() });
    let object = object(13, 1_000_000);
    let home = home(&lan, &object, 0);
    let mine = site(&lan, 1 - home);
    let urgency = || site(&lan, home).inner.known(&object.key.segment(0)).unwrap().demand().urgency;
    let ahead = tokio::spawn(mine.stream_ahead(object.clone()).try_collect::<Vec<_>>());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(urgency(), Urgency::Ahead);
    assert!(!mine.nix_waits());
    let nix = tokio::spawn(get(mine.clone(), object.clone()));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(urgency(), Urgency::Awaited);
    assert!(mine.nix_waits());
    assert!(nix.await.unwrap().unwrap() == content(0..1_000_000));
    assert_eq!(ahead.await.unwrap().unwrap().concat().len(), 1_000_000);
    assert!(!mine.nix_waits());
    assert_eq!(world.given.load(Ordering::Relaxed), 1_000_000, "it was fetched once");
    assert_eq!(mine.inner.stats.bytes_relayed_in.get(), 1_000_000, "and came once");
}

#[tokio::test(start_paused = true)]
async fn a_home_that_dies_in_the_middle_is_replaced_where_it_stopped() {
    let (lan, world) = lan(6, World { pause: Duration::from_millis(100), ..World::default() });
    let object = object(9, SIZE);
    let victim = home(&lan, &object, 0);
    let all: Vec<_> = (0..6)
        .filter(|n| *n != victim)
        .map(|n| tokio::spawn(get(site(&lan, n), object.clone())))
        .collect();
    sleep(Duration::from_millis(250)).await;
    lock(&lan.dead).insert(id(victim));
    for one in all {
        assert!(one.await.unwrap().unwrap() == content(0..SIZE));
    }
    // The dead one goes on fetching for itself in this world, for as long as it thinks that somebody listens.
    assert!(world.given.load(Ordering::Relaxed) < SIZE + 2 * SEGMENT_BYTES);
}

#[tokio::test(start_paused = true)]
async fn documents_and_their_absence() {
    let (lan, world) = lan(3, World::default());
    let document = SiteObject { size: None, ..object(3, 1) };
    for n in 0..3 {
        let text = site(&lan, n).document(document.clone()).await.unwrap();
        assert!(text == content(0..5_000));
    }
    assert_eq!(world.fetches.load(Ordering::Relaxed), 1);

    let (lan, world) = self::lan(3, World { absent: true, ..World::default() });
    let home = home(&lan, &document, 0);
    let other = (home + 1) % 3;
    assert_eq!(site(&lan, other).document(document).await, Err(SiteError::Absent));
    // A peer's "no" is not believed: the agent asked for itself as well.
    assert_eq!(world.fetches.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_get_what_is_private() {
    let (lan, world) = lan(4, World { private: true, ..World::default() });
    let object = object(5, 1_000);
    for n in 0..4 {
        assert!(get(site(&lan, n), object.clone()).await.unwrap() == content(0..1_000));
    }
    // Everybody for itself.
    assert_eq!(world.given.load(Ordering::Relaxed), 4_000);
}

#[tokio::test(start_paused = true)]
async fn the_unwilling_follow_but_do_not_fetch_for_others() {
    let (lan, world) = lan(4, World::default());
    for n in 0..3 {
        site(&lan, n).set_willing(false);
    }
    let object = object(6, SIZE);
    assert!(get(site(&lan, 0), object.clone()).await.unwrap() == content(0..SIZE));
    assert_eq!(world.given.load(Ordering::Relaxed), SIZE);
    assert_eq!(site(&lan, 0).inner.stats.bytes_outside.get(), 0);
    assert_eq!(site(&lan, 3).inner.stats.bytes_outside.get(), SIZE);
}

#[tokio::test(start_paused = true)]
async fn who_relays_wrong_bytes_is_found_out() {
    let (lan, _world) = lan(4, World::default());
    let object = object(8, 1_000_000);
    let liar = home(&lan, &object, 0);
    lock(&lan.liars).insert(id(liar));
    let victim = (liar + 1) % 4;
    assert!(get(site(&lan, victim), object.clone()).await.unwrap() != content(0..1_000_000));
    site(&lan, victim).wrong(&object);
    for _ in 0..100 {
        if !lock(&lan.blamed).is_empty() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*lock(&lan.blamed), [(id(liar), Fault::WrongContent)]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_cannot_plant_an_object_of_another_size() {
    let (lan, _world) = lan(2, World::default());
    let real = object(4, 1_000);
    assert!(get(site(&lan, 0), real.clone()).await.unwrap() == content(0..1_000));
    let forged = SiteObject { size: Cut::new(2_000), ..real.clone() };
    let asker =
        Asker { peer: id(1), membership: Membership::Stranger, addr: ([127, 0, 0, 1], 1).into() };
    let mut source = site(&lan, 0).serve(&asker, forged.request(0, 0, Urgency::Awaited));
    assert_eq!(source.next().await, SitePiece::End(SiteEnd::Refused));
    let elsewhere = SiteObject { outside: OutsideId::from_bytes([9; 32]), ..object(2, 10) };
    let mut source = site(&lan, 0).serve(&asker, elsewhere.request(0, 0, Urgency::Awaited));
    assert_eq!(source.next().await, SitePiece::End(SiteEnd::Refused), "not configured here");
}

/// What machines cost that read the same ten objects of 12 MiB each, every one beginning with another, with room for so
/// many MiB each; in downloads. So many of them fetch for nobody.
async fn downloads(memory: u64, disk: Option<u64>, unwilling: usize) -> f64 {
    const MACHINES: usize = 3;
    const OBJECTS: u8 = 10;
    const SIZE: u64 = 3 * SEGMENT_BYTES;
    let world = World { pause: Duration::from_millis(10), ..World::default() };
    let (lan, world) = attached(lan_with_memory(MACHINES, memory << 20), world);
    (0..unwilling).for_each(|n| site(&lan, n).set_willing(false));
    let dir = tempfile::tempdir().unwrap();
    if let Some(quota) = disk {
        for n in 0..MACHINES {
            let spill = Spill::open(dir.path(), quota << 20, SEGMENT_BYTES).unwrap();
            site(&lan, n).keep_on_disk(spill);
        }
    }
    let one = |n: usize| {
        let site = site(&lan, n);
        async move {
            for place in 0..OBJECTS {
                let number = (place + 4 * n as u8) % OBJECTS;
                let whole = get(site.clone(), object(100 + number, SIZE)).await.unwrap();
                assert!(whole == content(0..SIZE), "object {number} on machine {n}");
            }
            let (held, _) = site.inner.held();
            // And one object's pieces while they are read.
            assert!(held.in_memory <= (memory << 20) + SIZE, "{held:?}");
            assert!(disk.is_some() || held.on_disk == 0, "{held:?}");
            held.on_disk
        }
    };
    let on_disk: u64 = futures_util::future::join_all((0..MACHINES).map(one)).await.iter().sum();
    let given = world.given.load(Ordering::Relaxed) as f64 / (u64::from(OBJECTS) * SIZE) as f64;
    println!("{given:.3} downloads with {memory} MiB, {} MiB on disk", on_disk >> 20);
    given
}

#[tokio::test(start_paused = true)]
async fn machines_out_of_step_cost_one_download_of_more_than_they_keep_in_memory() {
    // 120 MiB together: each owes the others a third of it, and has something under way.
    assert_eq!(downloads(72, None, 0).await, 1.0);
    // Less memory than that, and a disk: what is owed comes back from there as it went. While much is under way at once,
    // not all of it gets there.
    assert!(downloads(32, Some(100), 0).await < 1.5);
    // One fetches for two that do not fetch for others: it owes them everything.
    assert!(downloads(32, Some(200), 2).await < 1.5);
}

/// Objects whose home is one machine, with another one next in turn, which has already got the lie of the first.
async fn passed_on(lan: &Arc<Lan>, liar: usize, next: usize, count: usize) -> Vec<SiteObject> {
    let turns = |object: &SiteObject| {
        lock(&lan.homes).ranking(&object.key.segment(0), OUTSIDE.tag(), 2, |_| true)
    };
    let all = (0..=255).map(|n| object(n, LIE));
    let objects: Vec<SiteObject> =
        all.filter(|object| turns(object) == [id(liar), id(next)]).take(count).collect();
    assert_eq!(objects.len(), count);
    lock(&lan.liars).insert(id(liar));
    for object in &objects {
        assert!(get(site(lan, next), object.clone()).await.unwrap() != content(0..LIE));
    }
    lock(&lan.homes).gone(&id(liar));
    objects
}

const LIE: u64 = 1_000_000;

#[tokio::test(start_paused = true)]
async fn who_passed_on_the_lie_of_a_liar_that_is_known_is_left_out_and_never_banned() {
    let (lan, _world) = lan(4, World::default());
    let objects = passed_on(&lan, 0, 1, 6).await;
    // It was found out for another object.
    lock(&lan.blamed).push((id(0), Fault::WrongContent));
    let victim = site(&lan, 2);
    for object in &objects {
        assert!(get(victim.clone(), object.clone()).await.unwrap() != content(0..LIE));
        assert_eq!(victim.find_liars(object).await, 0);
        // It is not asked for this one again.
        assert!(get(victim.clone(), object.clone()).await.unwrap() == content(0..LIE));
    }
    assert_eq!(lock(&lan.blamed).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_have_passed_lies_on_is_banned_when_it_happens_again_and_again() {
    let (lan, _world) = lan(4, World::default());
    let objects = passed_on(&lan, 0, 1, 3).await;
    // The home is not there any more, nobody knows why.
    lock(&lan.dead).insert(id(0));
    let victim = site(&lan, 2);
    for (n, object) in objects.iter().enumerate() {
        assert!(get(victim.clone(), object.clone()).await.unwrap() != content(0..LIE));
        assert_eq!(victim.find_liars(object).await, usize::from(n == 2), "{n}");
        assert!(get(victim.clone(), object.clone()).await.unwrap() == content(0..LIE));
    }
    assert_eq!(*lock(&lan.blamed), [(id(1), Fault::WrongContent)]);
}
