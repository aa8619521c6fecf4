//! Directories, S3, passwords, stores of others.

use std::net::SocketAddr;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use super::*;
use crate::store::s3::Environment;

/// A cache as files.
fn write_cache(dir: &std::path::Path, path: &Path) {
    std::fs::create_dir_all(dir.join("nar")).unwrap();
    std::fs::write(dir.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 50\n").unwrap();
    std::fs::write(dir.join(path.file_name()), path.narinfo()).unwrap();
    std::fs::write(dir.join(format!("nar/{}.nar", path.hash())), &path.nar).unwrap();
}

#[tokio::test]
async fn a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new(1, 400_000);
    write_cache(dir.path(), &path);
    let upstreams = upstreams(&[&format!("file://{}", dir.path().display())]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 400_000).await.unwrap(), path.nar);
    let part = upstreams.open(&found.file, 300_000, Some(50_000)).await.unwrap();
    assert_eq!(part.total, Some(400_000));
    assert_eq!(collect(part).await.unwrap(), path.nar[300_000..350_000]);
    assert!(matches!(upstreams.narinfo(Path::new(2, 1).hash(), AMPLE).await, Answer::Absent));
    assert_eq!(upstreams.status()[0].priority, 50);

    // A disk that is not there is trouble, not "no".
    let gone = format!("file://{}/not-mounted", dir.path().display());
    let upstreams = super::upstreams(&[&gone]);
    assert!(matches!(upstreams.narinfo(path.hash(), AMPLE).await, Answer::Unknown(_)));
}

pub(super) async fn s3_server(root: &std::path::Path) -> SocketAddr {
    let files = s3s_fs::FileSystem::new(root).unwrap();
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single("AKIATEST", "s3cret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

pub(super) fn credentials(secret: &str) -> Environment {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Environment {
        variables: vec![
            variable("AWS_ACCESS_KEY_ID", "AKIATEST"),
            variable("AWS_SECRET_ACCESS_KEY", secret),
        ],
        ..Environment::default()
    }
}

#[tokio::test]
async fn a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new(1, 300_000);
    write_cache(&dir.path().join("my-cache/team"), &path);
    let address = s3_server(dir.path()).await;
    let url = format!("s3://my-cache/team?endpoint=http://{address}&region=eu-test-1");

    let mut options = options();
    options.aws = Some(credentials("s3cret"));
    let upstreams = with(options, &[&url]);
    let found = expect_found(upstreams.narinfo(path.hash(), AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 300_000).await.unwrap(), path.nar);
    let part = upstreams.open(&found.file, 100_000, Some(1000)).await.unwrap();
    assert_eq!(collect(part).await.unwrap(), path.nar[100_000..101_000]);
    assert!(matches!(upstreams.narinfo(Path::new(2, 1).hash(), AMPLE).await, Answer::Absent));

    // The wrong secret is refused by the service, and said so.
    for aws in [credentials("wrong"), Environment::default()] {
        let mut options = super::options();
        options.aws = Some(aws);
        let upstreams = with(options, &[&url]);
        let answer = upstreams.narinfo(path.hash(), AMPLE).await;
        assert!(matches!(answer, Answer::Unknown(Trouble::Unusable(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn another_store_is_not_used() {
    let server = Server::plain(|_| answer(200, "StoreDir: /gnu/store\n")).await;
    let upstreams = upstreams(&[&server.url()]);
    let Answer::Unknown(trouble) = upstreams.narinfo(Path::new(1, 1).hash(), AMPLE).await else {
        panic!("usable");
    };
    assert!(trouble.to_string().contains("/gnu/store"), "{trouble}");
    assert!(matches!(upstreams.narinfo(Path::new(2, 1).hash(), AMPLE).await, Answer::Unknown(_)));
    assert_eq!(server.requests(), 1, "not asked again");
}

#[tokio::test]
async fn passwords_go_to_their_host_and_no_other() {
    let path = Path::new(1, 1000);
    let (hash, bytes) = (path.hash(), path.nar.clone());
    let storage = Server::tls(move |request| {
        let leaked = request.headers().contains_key("authorization");
        if leaked { answer(400, "") } else { file(&request, bytes.clone().into()) }
    })
    .await;
    // `localhost` and `127.0.0.1` are two hosts by name.
    let target = format!("https://localhost:{}/k?sig=1", storage.address.port());
    let cache = cache_of(vec![path]);
    let server = Server::tls(move |request| {
        let login = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        if login.as_deref() != Some("Basic bWU6czNjcmV0") {
            return answer(401, "");
        }
        if request.uri().path().starts_with("/nar/") {
            return hyper::Response::builder()
                .status(302)
                .header("location", &target)
                .body(body(""))
                .unwrap();
        }
        cache(request)
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let netrc = dir.path().join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login me password s3cret\n").unwrap();
    let trusting = |server: &Server| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(server.certificate()).unwrap();
        roots.add(storage.certificate()).unwrap();
        let mut options = options();
        options.tls = Some(crate::tls_with(roots).unwrap());
        options
    };
    let mut options = trusting(&server);
    options.netrc = Some(netrc);
    let upstreams = with(options, &[&server.url()]);
    let found = expect_found(upstreams.narinfo(hash, AMPLE).await);
    assert_eq!(nar(&upstreams, &found.file, 1000).await.unwrap().len(), 1000);

    let in_url = server.url().replace("https://", "https://me:s3cret@");
    let upstreams = with(trusting(&server), &[&in_url]);
    expect_found(upstreams.narinfo(hash, AMPLE).await);

    let upstreams = with(trusting(&server), &[&server.url()]);
    let answer = upstreams.narinfo(hash, AMPLE).await;
    assert!(matches!(answer, Answer::Unknown(Trouble::Denied(401))), "{answer:?}");
}
