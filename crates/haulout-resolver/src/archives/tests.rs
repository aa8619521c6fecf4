use std::sync::atomic::{AtomicUsize, Ordering};

use haulout_nix::{NarHash, StorePath};

use super::*;

/// An archive with one path, which does as it is told.
struct Script {
    info: PathInfo,
    nar: Vec<u8>,
    asked: AtomicUsize,
    mood: Mutex<Mood>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Silent,
    Failing,
    /// Breaks off in the middle of a NAR.
    Breaking,
}

impl Script {
    fn new(nar: &[u8]) -> Arc<Self> {
        let path: StorePath = "0c0nqf1k8r8xyh5hbz4w1mfcmdlz7hpj-hello".parse().unwrap();
        let info = PathInfo {
            references: vec![path.clone()],
            path,
            nar_hash: NarHash::of(nar),
            nar_size: nar.len() as u64,
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        let mood = Mutex::new(Mood::Well);
        Arc::new(Self { info, nar: nar.to_vec(), asked: AtomicUsize::new(0), mood })
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn answer<T: Send + 'static>(&self, well: T) -> Answer<Result<T, String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.lock().unwrap();
        Box::pin(async move {
            match mood {
                Mood::Silent => std::future::pending().await,
                Mood::Failing => Err("it is out".to_owned()),
                Mood::Well | Mood::Breaking => Ok(well),
            }
        })
    }

    fn hash(&self) -> HashPart {
        self.info.path.hash_part()
    }

    fn key(&self) -> NarKey {
        NarKey { path: self.hash(), nar_hash: self.info.nar_hash, nar_size: self.info.nar_size }
    }
}

impl Archive for Script {
    fn path_info(&self, hash: HashPart) -> Answer<Result<Option<PathInfo>, String>> {
        self.answer((hash == self.hash()).then(|| self.info.clone()))
    }

    fn nar(&self, key: NarKey) -> Answer<Result<Option<NarBytes>, String>> {
        let mut pieces = vec![Ok(Bytes::copy_from_slice(&self.nar))];
        if *self.mood.lock().unwrap() == Mood::Breaking {
            pieces = vec![Ok(Bytes::copy_from_slice(&self.nar[..1])), Err("torn".to_owned())];
        }
        let bytes: NarBytes = stream::iter(pieces).boxed();
        self.answer((key == self.key()).then_some(bytes))
    }

    fn report(&self) -> SourceReport {
        SourceReport { usable: true, ..SourceReport::default() }
    }
}

fn archives(all: &[&Arc<Script>]) -> Arc<Archives> {
    let all = all.iter().map(|one| Arc::clone(*one) as Arc<dyn Archive>).collect();
    Archives::new(all, Arc::default(), Arc::new(Reasons::new()))
}

async fn read(archives: &Arc<Archives>, key: NarKey) -> Option<Vec<Result<Bytes, String>>> {
    Some(Arc::clone(archives).open(key).await?.collect().await)
}

#[tokio::test(start_paused = true)]
async fn one_that_is_silent_costs_its_budget_once_and_then_rests() {
    let (silent, well) = (Script::new(b"one"), Script::new(b"one"));
    silent.be(Mood::Silent);
    let archives = archives(&[&silent, &well]);
    let begun = Instant::now();
    assert!(archives.path_info(well.hash()).await.is_some());
    assert_eq!(begun.elapsed(), INFO_BUDGET);
    // Now it rests: other questions do not wait for it.
    let begun = Instant::now();
    assert!(archives.path_info(HashPart::from_bytes([1; 20])).await.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(!archives.reports()[0].usable && archives.reports()[1].usable);
    // After its rest it is asked again, and forgiven.
    silent.be(Mood::Well);
    tokio::time::advance(REST.0).await;
    assert!(archives.path_info(HashPart::from_bytes([1; 20])).await.is_none());
    assert_eq!(silent.asked.load(Ordering::SeqCst), 2);
    assert!(archives.reports()[0].usable);
}

#[tokio::test(start_paused = true)]
async fn rests_grow_up_to_a_limit() {
    let failing = Script::new(b"one");
    failing.be(Mood::Failing);
    let archives = archives(&[&failing]);
    for _ in 0..10 {
        assert!(archives.path_info(failing.hash()).await.is_none());
        tokio::time::advance(REST.1).await;
    }
    assert_eq!(failing.asked.load(Ordering::SeqCst), 10, "never longer than the longest rest");
}

#[tokio::test(start_paused = true)]
async fn a_nar_that_breaks_off_is_had_elsewhere_for_a_while() {
    let archive = Script::new(b"a NAR");
    let archives = archives(&[&archive]);
    let whole = read(&archives, archive.key()).await.unwrap();
    assert_eq!(whole, [Ok(Bytes::from_static(b"a NAR"))]);
    assert_eq!(archives.stats.nar_archive.get(), 1);

    archive.be(Mood::Breaking);
    let torn = read(&archives, archive.key()).await.unwrap();
    assert!(torn.len() == 2 && torn[1].is_err(), "{torn:?}");
    assert!(read(&archives, archive.key()).await.is_none(), "not from there again");
    assert_eq!(archives.stats.nar_archive.get(), 1);
    archive.be(Mood::Well);
    tokio::time::advance(FAILED_FOR).await;
    assert!(read(&archives, archive.key()).await.is_some());
    let another = NarKey { nar_hash: NarHash::of(b"another"), ..archive.key() };
    assert!(read(&archives, another).await.is_none(), "another build of the path");
}
