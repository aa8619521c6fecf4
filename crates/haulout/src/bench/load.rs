//! Requests over kept-alive connections, timed one by one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::error::{Context, Failure, Outcome};

/// Longest answer expected.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Requests on each connection before any is timed.
const WARM_UP: usize = 50;

/// What many requests took, ascending.
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Milliseconds at quantile `q`, 0 to 1.
    pub(super) fn ms(&self, q: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * q).round() as usize;
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Asks `server` for `paths` in turn, on `connections` at a time, `requests` on each; every
/// answer must have `status`. The client is one thread.
pub(super) async fn ask(
    server: SocketAddr,
    paths: &Arc<Vec<String>>,
    status: u16,
    connections: usize,
    requests: usize,
) -> Outcome<Latencies> {
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let paths = Arc::clone(paths);
        tasks.spawn(async move {
            let first = number * paths.len() / connections;
            one_connection(server, &paths, first, status, requests).await
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.context(|| "a connection was cut off".to_owned())??);
    }
    all.sort_unstable();
    Ok(Latencies(all))
}

async fn one_connection(
    server: SocketAddr,
    paths: &[String],
    first: usize,
    status: u16,
    requests: usize,
) -> Outcome<Vec<Duration>> {
    let asking = || format!("asking {server}");
    let mut stream = TcpStream::connect(server).await.context(asking)?;
    stream.set_nodelay(true).context(asking)?;
    let mut times = Vec::with_capacity(requests);
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    let wanted = format!("HTTP/1.1 {status} ");
    for number in 0..WARM_UP + requests {
        let path = &paths[(first + number) % paths.len()];
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.context(asking)?;
        answer.clear();
        while !is_complete(&answer) {
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(Failure::new(format!("{server} answers {path} at too great length")));
            }
            if stream.read_buf(&mut answer).await.context(asking)? == 0 {
                return Err(Failure::new(format!("{server} closed the connection")));
            }
        }
        let took = begun.elapsed();
        if !answer.starts_with(wanted.as_bytes()) {
            let head = String::from_utf8_lossy(&answer);
            let line = head.lines().next().unwrap_or_default();
            return Err(Failure::new(format!("{server} answers {path} with {line:?}")));
        }
        if number >= WARM_UP {
            times.push(took);
        }
    }
    Ok(times)
}

/// The header, and as much after it as it announces.
fn is_complete(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&answer[..head]);
    let length = text.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        let is_it = name.eq_ignore_ascii_case("content-length");
        if is_it { value.trim().parse::<usize>().ok() } else { None }
    });
    answer.len() >= head + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_header_says() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..answer.len() {
            assert!(!is_complete(&answer[..end]), "{end}");
        }
        assert!(is_complete(answer));
        assert!(is_complete(b"HTTP/1.1 404 Not Found\r\n\r\n"));
    }

    #[test]
    fn quantiles_of_few() {
        let times = Latencies((1..=3).map(Duration::from_millis).collect());
        assert_eq!((times.ms(0.0), times.ms(0.5), times.ms(1.0)), (1.0, 2.0, 3.0));
    }
}
