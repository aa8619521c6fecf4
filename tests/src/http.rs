//! A plain HTTP/1.1 client that hides nothing: status, headers and body as they came,
//! and whether the body was cut. One connection, kept alive.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Host;

/// Longer than any answer that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// The connection ended before the promised length.
    pub cut: bool,
}

impl Response {
    /// The value of a header field; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Connection {
    /// Connects from `host` (its loopback included).
    pub fn open(host: &Host, address: SocketAddr) -> io::Result<Self> {
        let stream = host.inside(|| TcpStream::connect(address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), address })
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[])
    }

    /// Sends a request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.get_mut().write_all(head.as_bytes())?;
        let (status, headers) = self.read_head()?;
        let mut response = Response { status, headers, body: Vec::new(), cut: false };
        if method != "HEAD" && status != 204 && status != 304 {
            self.read_body(&mut response)?;
        }
        Ok(response)
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.read_line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn read_body(&mut self, response: &mut Response) -> io::Result<()> {
        if response.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return self.read_chunks(response);
        }
        let length = response.header("content-length").and_then(|value| value.parse::<u64>().ok());
        let wanted = length.unwrap_or(u64::MAX);
        let read = (&mut self.stream).take(wanted).read_to_end(&mut response.body);
        let got = response.body.len() as u64;
        response.cut = length.is_some_and(|length| got < length);
        match read {
            // A reset is how a server cuts an answer that it cannot finish.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                response.cut = true;
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    fn read_chunks(&mut self, response: &mut Response) -> io::Result<()> {
        loop {
            let Ok(line) = self.read_line() else {
                response.cut = true;
                return Ok(());
            };
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            let got = (&mut self.stream).take(size).read_to_end(&mut response.body)? as u64;
            if got < size {
                response.cut = true;
                return Ok(());
            }
            self.read_line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

/// `GET path` on a connection of its own.
pub fn get(host: &Host, address: SocketAddr, path: &str) -> io::Result<Response> {
    Connection::open(host, address)?.get(path)
}
