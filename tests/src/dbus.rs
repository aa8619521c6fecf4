//! A D-Bus of a host's own, with a real `dbus-daemon`, and programs on it that have properties.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::skip;
use crate::{Host, Process, wait_until};

/// What the daemon may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A bus where everything is allowed.
#[derive(Debug)]
pub struct Bus {
    address: String,
    daemon: Process,
}

impl Bus {
    /// Starts one on a host.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let socket = host.dir().join("bus");
        let config = host.dir().join("bus.conf");
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text).expect("scratch");
        let mut command = Command::new(skip::find_program("dbus-daemon").expect("dbus-daemon"));
        command
            .arg("--nofork")
            .arg("--nopidfile")
            .arg(format!("--config-file={}", config.display()));
        let daemon = Process::start("dbus-daemon", command, &host.dir().join("bus.log"));
        assert!(wait_until(START_LIMIT, || socket.exists()), "{}", daemon.log());
        Self { address: format!("unix:path={}", socket.display()), daemon }
    }

    /// For `DBUS_SYSTEM_BUS_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the daemon said.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// A command of the host's that talks to this bus.
    #[must_use]
    pub fn command(&self, host: &Host, program: &Path) -> Command {
        let mut command = host.command(program);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        command
    }

    /// A program called `name` that answers `Properties.Get` of any object; until the test ends.
    ///
    /// # Panics
    /// When the bus does not let it.
    #[must_use]
    pub fn serve(&self, name: &str, properties: &[(&str, Value)]) -> Properties {
        let path = self.address.trim_start_matches("unix:path=");
        let mut connection = Connection::open(Path::new(path)).expect("the bus");
        connection.call("Hello", &[]).expect("the bus");
        connection.call("RequestName", &[Value::Text(name.to_owned()), Value::U32(4)]).expect(name);
        let known = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let properties = Properties(Arc::new(Mutex::new(known.collect())));
        let answering = properties.clone();
        // It ends with the bus.
        std::thread::spawn(move || while connection.answer(&answering).is_ok() {});
        properties
    }
}

/// The properties of a program on the bus.
#[derive(Debug, Clone)]
pub struct Properties(Arc<Mutex<HashMap<String, Value>>>);

impl Properties {
    /// From now on it has this value.
    ///
    /// # Panics
    /// Never, unless a test did while it held them.
    pub fn set(&self, name: &str, value: Value) {
        self.0.lock().expect("properties").insert(name.to_owned(), value);
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.0.lock().expect("properties").get(name).cloned()
    }
}

/// A value of D-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `u`
    U32(u32),
    /// `s`
    Text(String),
}

impl Value {
    const fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::Text(_) => "s",
        }
    }
}

/// A message as the D-Bus specification has it, little-endian: what is aligned is aligned from its start.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).expect("short"));
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).expect("short"));
        self.0.extend(text.bytes().chain([0]));
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U32(value) => self.u32(*value),
            Value::Text(text) => self.text(text),
        }
    }
}

/// A header's fields: codes of the specification.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SENDER: u8 = 7;
    pub(super) const SIGNATURE: u8 = 8;
}

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// What is looked at of a message.
#[derive(Debug, Default)]
struct Incoming {
    kind: u8,
    serial: u32,
    member: String,
    sender: String,
    body: Vec<u8>,
}

/// A program's connection to the bus.
struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    fn open(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        // Who we are is seen by the daemon itself: EXTERNAL, with our user's number in hexadecimal.
        let user: String = rustix::process::getuid()
            .as_raw()
            .to_string()
            .bytes()
            .map(|b| format!("{b:02x}"))
            .collect();
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, serial: 0 })
    }

    fn send(
        &mut self,
        kind: u8,
        fields: &[(u8, &str, &str)],
        reply_to: u32,
        body: &Writer,
        signature: &str,
    ) -> io::Result<u32> {
        self.serial += 1;
        let mut message = Writer(vec![b'l', kind, 0, 1]);
        message.u32(u32::try_from(body.0.len()).expect("short"));
        message.u32(self.serial);
        // The length of the fields, once it is known.
        message.u32(0);
        let start = message.0.len();
        for (code, of, text) in fields {
            message.align(8);
            message.0.push(*code);
            message.signature(of);
            message.text(text);
        }
        if reply_to > 0 {
            message.align(8);
            message.0.push(field::REPLY_SERIAL);
            message.signature("u");
            message.u32(reply_to);
        }
        if !signature.is_empty() {
            message.align(8);
            message.0.push(field::SIGNATURE);
            message.signature("g");
            message.signature(signature);
        }
        let length = u32::try_from(message.0.len() - start).expect("short");
        message.0[start - 4..start].copy_from_slice(&length.to_le_bytes());
        message.align(8);
        message.0.extend(&body.0);
        self.stream.write_all(&message.0)?;
        Ok(self.serial)
    }

    /// Calls a method of the bus itself and waits for its answer.
    fn call(&mut self, method: &str, arguments: &[Value]) -> io::Result<()> {
        let mut body = Writer::default();
        arguments.iter().for_each(|value| body.value(value));
        let signature: String = arguments.iter().map(Value::signature).collect();
        let fields = [
            (field::PATH, "o", "/org/freedesktop/DBus"),
            (field::INTERFACE, "s", "org.freedesktop.DBus"),
            (field::MEMBER, "s", method),
            (field::DESTINATION, "s", "org.freedesktop.DBus"),
        ];
        self.send(CALL, &fields, 0, &body, &signature)?;
        loop {
            match self.receive()?.kind {
                RETURN => return Ok(()),
                ERROR => return Err(io::Error::other(method.to_owned())),
                // Signals: that the name is ours now.
                _ => {}
            }
        }
    }

    /// Answers one message.
    fn answer(&mut self, properties: &Properties) -> io::Result<()> {
        let asked = self.receive()?;
        if asked.kind != CALL {
            return Ok(());
        }
        let name = (asked.member == "Get").then(|| second_text(&asked.body)).flatten();
        let to = (field::DESTINATION, "s", asked.sender.as_str());
        let mut body = Writer::default();
        match name.and_then(|name| properties.get(&name)) {
            Some(value) => {
                body.signature(value.signature());
                body.value(&value);
                self.send(RETURN, &[to], asked.serial, &body, "v")?;
            }
            None => {
                let error = (field::ERROR, "s", "org.freedesktop.DBus.Error.UnknownProperty");
                self.send(ERROR, &[error, to], asked.serial, &body, "")?;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Incoming> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| {
            head[at..at + 4].try_into().map(u32::from_le_bytes).map_err(io::Error::other)
        };
        let (body, serial, fields) = (number(4)? as usize, number(8)?, number(12)? as usize);
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let mut message = Incoming { kind: head[1], serial, ..Incoming::default() };
        message.body = rest.split_off(fields.next_multiple_of(8));
        // Fields begin at byte 16 of the message, which is aligned to eight.
        let mut at = 0;
        while at < fields {
            at = at.next_multiple_of(8);
            let Some(&[code, 1, kind, 0]) = rest.get(at..at + 4) else { break };
            at += 4;
            let text = match kind {
                b's' | b'o' => text_at(&rest, &mut at),
                b'g' => {
                    at += 2 + usize::from(rest[at]);
                    None
                }
                // `u`
                _ => {
                    at += 4;
                    None
                }
            };
            match code {
                field::MEMBER => message.member = text.unwrap_or_default(),
                field::SENDER => message.sender = text.unwrap_or_default(),
                _ => {}
            }
        }
        Ok(message)
    }
}

fn text_at(bytes: &[u8], at: &mut usize) -> Option<String> {
    *at = at.next_multiple_of(4);
    let length = u32::from_le_bytes(bytes.get(*at..*at + 4)?.try_into().ok()?) as usize;
    let text = bytes.get(*at + 4..*at + 4 + length)?;
    *at += 5 + length;
    String::from_utf8(text.to_vec()).ok()
}

/// Of `Get`: the property's name, after its interface.
fn second_text(body: &[u8]) -> Option<String> {
    let mut at = 0;
    text_at(body, &mut at)?;
    text_at(body, &mut at)
}
