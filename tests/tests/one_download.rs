//! One download per site: machines that want the same closure in the same second cost the uplink about one.

use std::time::Duration;

use system_tests::wiretap::assert_no_server_errors;
use system_tests::{CacheCompression, FIND_LIMIT, Machine, Scene, StaticCache, Wan};

const PATHS: usize = 300;
const BYTES: u64 = 60 << 20;
/// Less than the closure has compressed (some 27 MB): whoever is behind needs what others have long read.
const LITTLE: &str = "\"16 MiB\"";
/// The default.
const MEMORY: &str = "\"96 MiB\"";
const LINE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// The world outside is host 0; everybody else is a machine of the site.
struct Stage {
    scene: Scene,
    _cache: StaticCache,
    wan: Wan,
    /// Bytes of the closure as the cache has it, narinfos included.
    compressed: u64,
}

fn stage(machines: usize) -> Option<Stage> {
    stage_behind(machines, LINE)
}

fn stage_behind(machines: usize, line: u64) -> Option<Stage> {
    let scene = Scene::new(1 + machines, PATHS, BYTES)?;
    let top = [scene.closure().top().to_owned()];
    let outside = scene.lab().host(0);
    let cache = StaticCache::start(
        outside,
        scene.nix(),
        scene.closure().root(),
        &top,
        CacheCompression::Zstd,
    )?;
    let files = outside.dir().join("cache-zstd");
    let compressed = [files.clone(), files.join("nar")].iter().map(|dir| size_of_files(dir)).sum();
    let wan = Wan::start(outside, cache.address(), line, ROUND_TRIP);
    Some(Stage { scene, _cache: cache, wan, compressed })
}

fn size_of_files(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

impl Stage {
    fn machines(&self, hosts: std::ops::Range<usize>, memory: &'static str) -> Vec<Machine<'_>> {
        let url = format!("[{:?}]", self.wan.url());
        let count = hosts.len();
        let machines: Vec<Machine<'_>> = hosts
            .map(|host| {
                self.scene.machine_with(host, self.scene.nix(), &[], |spec| {
                    spec.set("upstream.urls", url.clone())
                        .set("upstream.nix_conf", "false")
                        .set("site.memory", memory)
                })
            })
            .collect();
        for machine in &machines {
            machine.agent.wait_for_peers(count - 1, FIND_LIMIT);
        }
        machines
    }

    /// All at once; the bytes that came over the line, in closures.
    fn copy_all(&self, machines: &[Machine<'_>], meanwhile: impl FnOnce()) -> f64 {
        let before = self.wan.bytes();
        let top = self.scene.closure().top();
        std::thread::scope(|scope| {
            let all: Vec<_> = machines
                .iter()
                .map(|machine| scope.spawn(|| machine.nix.copy(&machine.tap.url(), top).ok()))
                .collect();
            meanwhile();
            for one in all {
                let outcome = one.join().expect("Nix");
                println!("{:.1} s", outcome.wall.as_secs_f64());
            }
        });
        (self.wan.bytes() - before) as f64 / self.compressed as f64
    }

    fn tell(&self, downloads: f64, machines: &[Machine<'_>]) {
        println!("{downloads:.3} × the closure of {} bytes", self.compressed);
        for machine in machines {
            println!("{:?}", machine.agent.status().counters.site);
        }
    }

    fn check(&self, machines: &[Machine<'_>]) {
        let paths = self.scene.closure().paths();
        for machine in machines {
            let _ = machine.nix.verify(&paths).ok();
            assert_no_server_errors(&machine.tap.take());
            for peer in machine.agent.peers() {
                assert!(
                    !peer.faults.contains_key("wrong-content"),
                    "an honest peer was blamed: {peer:#?}"
                );
            }
        }
    }
}

#[test]
fn eight_machines_cost_the_uplink_one_closure() {
    let Some(stage) = stage(8) else { return };
    let machines = stage.machines(1..9, LITTLE);
    let downloads = stage.copy_all(&machines, || {});
    stage.tell(downloads, &machines);
    stage.check(&machines);
    assert!(downloads <= 1.05, "{downloads:.3} × the closure came over the line");
}

#[test]
fn two_machines_that_die_in_the_middle_cost_little_and_nobody_fails() {
    let Some(stage) = stage(8) else { return };
    let mut dying = stage.machines(1..3, MEMORY);
    let living = {
        let living = stage.machines(3..9, MEMORY);
        for machine in &living {
            machine.agent.wait_for_peers(7, FIND_LIMIT);
        }
        living
    };
    let top = stage.scene.closure().top().to_owned();
    let mut copies: Vec<_> = dying
        .iter()
        .map(|machine| {
            machine.nix.spawn(
                "nix",
                &["copy", "--from", &machine.tap.url(), "--to", &machine.nix.store(), &top],
            )
        })
        .collect();
    let before = stage.wan.bytes();
    let third = stage.compressed / 3;
    let downloads = stage.copy_all(&living, || {
        system_tests::wait_until(Duration::from_secs(60), || stage.wan.bytes() - before > third);
        for copy in &mut copies {
            copy.kill();
        }
        for machine in &mut dying {
            machine.agent.process().kill();
        }
    });
    stage.tell(downloads, &living);
    stage.check(&living);
    assert!(downloads <= 1.2, "{downloads:.3} × the closure came over the line");
}

#[test]
fn who_comes_in_the_middle_costs_nothing_more() {
    let Some(stage) = stage(4) else { return };
    let first = stage.machines(1..4, MEMORY);
    let (before, half) = (stage.wan.bytes(), stage.compressed / 2);
    let mut late = Vec::new();
    let downloads = stage.copy_all(&first, || {
        let begun =
            system_tests::wait_until(Duration::from_secs(60), || stage.wan.bytes() - before > half);
        assert!(begun, "half of it comes over the line");
        late = stage.machines(4..5, MEMORY);
        late[0].agent.wait_for_peers(3, FIND_LIMIT);
        let _ = late[0].nix.copy(&late[0].tap.url(), stage.scene.closure().top()).ok();
    });
    stage.tell(downloads, &late);
    stage.check(&first);
    stage.check(&late);
    // Mostly 1.01. While the others meet it one after the other, a piece of 4 MiB, 15 % of this closure, can be begun by its
    // old home and by its new one.
    assert!(downloads <= 1.2, "{downloads:.3} × the closure came over the line");
}

/// Somebody asks what a closure weighs and does not want it: what is fetched ahead stops by itself.
#[test]
fn what_nix_does_not_come_for_is_not_fetched_on() {
    let Some(stage) = stage_behind(1, LINE / 40) else { return };
    let [machine] = &stage.machines(1..2, MEMORY)[..] else { panic!("one machine") };
    let top = stage.scene.closure().top();
    let ask = ["path-info", "--recursive", "--store", &machine.tap.url(), top];
    let _ = machine.nix.run("nix", &ask).ok();
    let asked = stage.wan.bytes();
    let fetched = || stage.wan.bytes() - asked;
    // All of it would take 80 s.
    let begun = system_tests::wait_until(Duration::from_secs(30), || fetched() > 1 << 20);
    assert!(begun, "something is fetched before it is asked for: {}", fetched());
    let mut last = fetched();
    let stopped = system_tests::wait_until(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(4));
        let now = fetched();
        now == std::mem::replace(&mut last, now)
    });
    println!("{last} of {} bytes were fetched in vain", stage.compressed);
    assert!(stopped, "it goes on and on: {last} bytes");
    assert!(last < stage.compressed * 3 / 4, "it stopped at the end: {last} bytes");
}
