//! The ordinary thing to compare with: a closure as files behind nginx.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::skip::{self, Tool};
use crate::{Host, Nix, Process, wait_until};

/// How the NARs of a static cache are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheCompression {
    /// As they are.
    None,
    /// zstd, made beforehand.
    Zstd,
}

/// A binary cache made by `nix copy --to file://` and served by nginx on a host.
#[derive(Debug)]
pub struct StaticCache {
    process: Process,
    address: SocketAddr,
}

const PORT: u16 = 8080;

impl StaticCache {
    /// Copies `paths` with their closures out of the chroot store `root` and serves
    /// them. `None`, reported as a skipped test, without nginx.
    ///
    /// # Panics
    /// When Nix or nginx fails.
    #[must_use]
    pub fn start(
        host: &Host,
        nix: &Nix,
        root: &Path,
        paths: &[String],
        compression: CacheCompression,
    ) -> Option<Self> {
        if !skip::have(&[Tool::Nginx]) {
            return None;
        }
        let name = match compression {
            CacheCompression::None => "none",
            CacheCompression::Zstd => "zstd",
        };
        let files = host.dir().join(format!("cache-{name}"));
        nix.make_cache(root, paths, &files, name);
        Some(Self::serve(host, &files))
    }

    /// Serves a directory that is a binary cache. `None` without nginx.
    #[must_use]
    pub fn of(host: &Host, files: &Path) -> Option<Self> {
        skip::have(&[Tool::Nginx]).then(|| Self::serve(host, files))
    }

    /// A central caching proxy for the cache at `url`, with nothing in it yet.
    ///
    /// # Panics
    /// When nginx fails, or is not there.
    #[must_use]
    pub fn proxy(host: &Host, url: &str) -> Self {
        let store = host.dir().join("proxy-cache");
        crate::scratch::remove(&store);
        fs::create_dir_all(&store).expect("scratch");
        let http = format!(
            "proxy_cache_path {store} keys_zone=all:10m max_size=10g inactive=1d use_temp_path=off;",
            store = store.display()
        );
        let server = format!(
            "location / {{ proxy_pass {url}; proxy_cache all; proxy_cache_lock on; \
             proxy_cache_lock_timeout 60s; proxy_cache_valid 200 1d; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; }}"
        );
        Self::launch(host, &http, &server)
    }

    /// Serves a directory that is a binary cache.
    fn serve(host: &Host, files: &Path) -> Self {
        Self::launch(host, "", &format!("root {};", files.display()))
    }

    fn launch(host: &Host, http: &str, server: &str) -> Self {
        let run = host.dir().join("nginx");
        fs::create_dir_all(&run).expect("scratch");
        let run_dir = run.display();
        let conf = format!(
            "daemon off; master_process off; pid {run_dir}/pid; error_log stderr warn;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
               access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;\n\
               client_body_temp_path {run_dir}/body; proxy_temp_path {run_dir}/proxy;\n\
               fastcgi_temp_path {run_dir}/fastcgi; uwsgi_temp_path {run_dir}/uwsgi;\n\
               scgi_temp_path {run_dir}/scgi;\n\
               {http}\n\
               server {{ listen {PORT} backlog=512; {server} }}\n\
             }}\n"
        );
        let conf_file = run.join("nginx.conf");
        fs::write(&conf_file, conf).expect("nginx.conf");
        let program = skip::find_program("nginx").expect("was there");
        let mut command = host.command(program);
        command.arg("-p").arg(&run).arg("-c").arg(&conf_file);
        let mut process = Process::start("nginx", command, &run.join("log"));
        let address = SocketAddr::from((host.address(), PORT));
        let up = wait_until(Duration::from_secs(10), || {
            process.is_alive() && host.inside(|| TcpStream::connect(address)).is_ok()
        });
        assert!(up, "nginx did not start: {}", process.log());
        Self { process, address }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// nginx itself: one process, so that killing it is enough and its usage is all there is.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
