//! Only what is public anyway is given to strangers, and a closed mesh is closed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use haulout_nix::{PathInfo, SecretKey, StoreDir};
use system_tests::{Agent, AgentSpec, FIND_LIMIT, Host, Scene};

const PATHS: usize = 60;
const BYTES: u64 = 2 << 20;

/// How long something that must not happen gets to happen.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

/// The status of `agent`'s answer about a path, and that of its NAR as somebody who
/// knows all about it would ask.
fn asked(agent: &Agent<'_>, info: &PathInfo) -> (u16, u16) {
    let hash = info.path.hash_part();
    let narinfo = agent.get(&format!("/{hash}.narinfo")).unwrap();
    let nar = agent.get(&format!("/nar/{hash}-{}.nar", info.nar_hash.to_nix32())).unwrap();
    (narinfo.status, nar.status)
}

const GIVEN: (u16, u16) = (200, 200);
const REFUSED: (u16, u16) = (404, 404);

fn foreign_key() -> SecretKey {
    SecretKey::from_seed("foreign-1", [9; 32]).unwrap()
}

fn full(info: &PathInfo) -> String {
    StoreDir::default().display(&info.path)
}

/// An agent on `host` with an empty store that believes `keys`.
fn asker<'lab>(
    host: &'lab Host,
    keys: &[&str],
    more: impl Fn(AgentSpec) -> AgentSpec,
) -> Agent<'lab> {
    Agent::start(host, &more(AgentSpec::new(&host.dir().join("empty"), keys)))
}

#[test]
fn unsigned_and_foreign_signed_paths_are_not_given() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let closure = scene.closure();
    let (signed, unsigned, foreign) = (closure.leaf(0), closure.leaf(1), closure.leaf(2));
    closure.set_signatures(unsigned, &[]);
    closure.set_signatures(foreign, &[foreign.sign(&StoreDir::default(), &foreign_key())]);

    let _a = scene.seed(0);
    let keys = [closure.public_key(), foreign_key().public_key().to_string()];
    let b = asker(scene.lab().host(1), &[&keys[0], &keys[1]], |spec| spec);
    b.wait_for_peers(1, FIND_LIMIT);
    assert_eq!(asked(&b, signed), GIVEN);
    assert_eq!(asked(&b, unsigned), REFUSED);
    assert_eq!(asked(&b, foreign), REFUSED, "A does not trust that key, so it does not share it");
    // Not even announced.
    assert_eq!(b.peers()[0].holdings, Some(PATHS as u64 - 2));
}

#[test]
fn what_is_given_but_not_trusted_here_is_not_there() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = scene.seed(0);
    let b = asker(scene.lab().host(1), &[&foreign_key().public_key().to_string()], |spec| spec);
    b.wait_for_peers(1, FIND_LIMIT);
    assert_eq!(asked(&b, scene.closure().leaf(0)).0, 404);
}

#[test]
fn sharing_can_be_turned_off() {
    let Some(scene) = Scene::new(2, PATHS, BYTES) else { return };
    let _a = Agent::start(scene.lab().host(0), &scene.seed_spec().set("share.enable", "false"));
    let b = asker(scene.lab().host(1), &[&scene.closure().public_key()], |spec| spec);
    std::thread::sleep(LONG_ENOUGH);
    assert_eq!(asked(&b, scene.closure().leaf(0)), REFUSED);
}

/// Writes a mesh's secret for a host and returns the file.
fn secret_file(host: &Host, secret: &str) -> PathBuf {
    let file = host.dir().join("mesh-secret");
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

const SECRET: &str = "correct horse battery staple walrus ice floe";

/// Members of the mesh, on hosts 0 (with the closure) and 1, and two strangers: one
/// without a secret and one with another.
fn closed_mesh(scene: &Scene, member: impl Fn(AgentSpec) -> AgentSpec) -> [Agent<'_>; 4] {
    let key = scene.closure().public_key();
    let with_secret = |spec: AgentSpec, host: usize, secret: &str| {
        let file = secret_file(scene.lab().host(host), secret);
        spec.set("mesh.secret_file", format!("{:?}", file.display().to_string()))
    };
    let a = member(with_secret(scene.seed_spec(), 0, SECRET));
    let a = Agent::start(scene.lab().host(0), &a);
    let host = |index| scene.lab().host(index);
    let b = asker(host(1), &[&key], |spec| member(with_secret(spec, 1, SECRET)));
    let c = asker(host(2), &[&key], |spec| spec);
    let d =
        asker(host(3), &[&key], |spec| with_secret(spec, 3, "another secret of the same length"));
    b.wait_for_peers(1, FIND_LIMIT);
    std::thread::sleep(LONG_ENOUGH);
    [a, b, c, d]
}

#[test]
fn strangers_get_nothing_from_a_closed_mesh() {
    let Some(scene) = Scene::new(4, PATHS, BYTES) else { return };
    let [a, b, c, d] = closed_mesh(&scene, |spec| spec);
    let path = scene.closure().leaf(0);
    assert_eq!(asked(&b, path), GIVEN);
    for stranger in [&c, &d] {
        assert_eq!(asked(stranger, path), REFUSED);
        let told: Vec<_> = stranger.peers().into_iter().filter_map(|peer| peer.holdings).collect();
        assert!(told.iter().all(|count| *count == 0), "a stranger was told {told:?}");
    }
    let members = a.peers().into_iter().filter(|peer| peer.membership == "member").count();
    assert_eq!(members, 1, "{:#?}", a.peers());
}

#[test]
fn strangers_get_what_is_public_where_the_mesh_says_so() {
    let Some(scene) = Scene::new(4, PATHS, BYTES) else { return };
    let (public, private) = (scene.closure().leaf(0), scene.closure().leaf(1));
    scene.closure().set_signatures(private, &[]);
    let [_a, b, c, _d] = closed_mesh(&scene, |spec| spec.set("mesh.strangers", "\"public\""));
    assert_eq!(asked(&b, public), GIVEN);
    c.wait_for_peers(1, FIND_LIMIT);
    assert_eq!(asked(&c, public), GIVEN);
    assert_eq!(asked(&c, private), REFUSED);
}

#[test]
fn members_get_what_was_built_here_where_the_mesh_has_a_signing_key() {
    let Some(scene) = Scene::new(4, PATHS, BYTES) else { return };
    let built = scene.closure().leaf(0);
    scene.closure().set_signatures(built, &[]);
    let mesh_key = SecretKey::from_seed("office-mesh-1", [5; 32]).unwrap();
    let key_file = scene.lab().dir().join("mesh-key");
    std::fs::write(&key_file, mesh_key.to_secret_text()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = [scene.closure().public_key(), mesh_key.public_key().to_string()];
    let [_a, b, c, d] = closed_mesh(&scene, |spec| {
        spec.set("share.local_builds", "true")
            .set("mesh.signing_key_file", format!("{:?}", key_file.display().to_string()))
            .set("mesh.strangers", "\"public\"")
            .set("trust.keys", format!("{keys:?}"))
    });
    assert_eq!(asked(&b, built), GIVEN);
    for stranger in [&c, &d] {
        assert_eq!(asked(stranger, built), REFUSED);
    }

    // Nix on the member's machine takes it, as it trusts the mesh's key.
    let client = system_tests::NixClient::new(scene.nix(), b.host(), &[&b.url()], &[&keys[1]]);
    let _ = client.realise(&full(built)).ok();
    let _ = client.verify(&[full(built)]).ok();
}
