//! Packets as checked types. Anybody on the network can send any of them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, NSEC, NsecTypeBitMap, PTR, RData, SRV, TXT};
use simple_dns::{
    CLASS, CharacterString, Label, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE,
    ResourceRecord, TYPE,
};

/// Longest packet read, in bytes (RFC 6762 §17).
pub const PACKET_MAX: usize = 9_000;
/// Questions and records in one packet: more do not fit into [`PACKET_MAX`], so a header that says so lies.
pub const ENTRIES_MAX: usize = 1_024;
/// Longest name, in bytes of its wire form (RFC 1035 §3.1).
pub const NAME_MAX: usize = 255;

/// Why a packet is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`PACKET_MAX`], or more entries than [`ENTRIES_MAX`].
    #[error("the packet is too large")]
    TooLarge,
    /// Not a DNS message.
    #[error("the packet is malformed")]
    Malformed,
    /// Neither a question nor a good answer (RFC 6762 §18.3, §18.11).
    #[error("the packet has an operation or response code that multicast DNS does not use")]
    Foreign,
}

/// A DNS name: its labels with a length byte each and ASCII letters in lower case, because names match whatever their case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// A name written with dots between its labels; `None` if it is too long or has an empty label.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let labels = text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes);
        Self::from_labels(labels)
    }

    fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            let length =
                u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            wire.push(length);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        (wire.len() < NAME_MAX).then(|| Self(wire.into_boxed_slice()))
    }

    /// One label below this name.
    #[must_use]
    pub fn child(&self, label: &str) -> Option<Self> {
        Self::from_labels([label.as_bytes()].into_iter().chain(self.labels()))
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(*length))?;
            rest = tail;
            Some(label)
        })
    }

    /// Whether this is the name of an instance of a service: one label more.
    #[must_use]
    pub fn is_instance_of(&self, service: &Self) -> bool {
        let own = self.0.first().map_or(0, |length| usize::from(*length) + 1);
        own > 0 && self.0.get(own..) == Some(&service.0[..])
    }

    fn read(name: &simple_dns::Name<'_>) -> Option<Self> {
        Self::from_labels(name.get_labels().iter().map(AsRef::as_ref))
    }

    fn write(&self) -> simple_dns::Name<'_> {
        let labels: Vec<Label<'_>> = self.labels().map(Label::new_unchecked).collect();
        simple_dns::Name::new_with_labels(&labels)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(f, "{}.", label.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Instances of a service.
    Ptr,
    /// Port and host of an instance.
    Srv,
    /// Particulars of an instance.
    Txt,
    /// IPv4 addresses of a host.
    A,
    /// IPv6 addresses of a host.
    Aaaa,
    /// Everything there is.
    Any,
    /// Something that agents do not have.
    Other,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// About what.
    pub name: Name,
    /// What is wanted of it.
    pub kind: Kind,
    /// The asker would rather have a unicast answer ("QU").
    pub unicast: bool,
}

/// Contents of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An instance of the service that the record is named after.
    Ptr(Name),
    /// Where an instance is.
    Srv {
        /// UDP or TCP port.
        port: u16,
        /// The host.
        target: Name,
    },
    /// Strings with a length byte each.
    Txt(Box<[u8]>),
    /// An address of a host.
    Addr(IpAddr),
    /// Of this host there are only addresses of the named families.
    OnlyAddrs {
        /// IPv4.
        v4: bool,
        /// IPv6.
        v6: bool,
    },
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// About what.
    pub name: Name,
    /// The sender has all records of this name and type: others that are older are void.
    pub flush: bool,
    /// For how long it holds, in seconds; 0: no longer.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// One packet. Of a question's records only those count that the asker knows already; of an answer's, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// To match a legacy answer to its question; 0 in all else.
    pub id: u16,
    /// An answer, not a question.
    pub response: bool,
    /// More known answers follow in another packet.
    pub truncated: bool,
    /// What is asked.
    pub questions: Vec<Question>,
    /// What is known, or answered.
    pub records: Vec<Record>,
}

impl Message {
    /// Reads a packet. Records of kinds that agents do not use are left out.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let header = bytes.first_chunk::<12>().ok_or(MessageError::Malformed)?;
        // The counts, after id and flags, are believed by the parser when it reserves memory.
        let numbers = header.as_chunks::<2>().0.iter().skip(2);
        let counts = numbers.map(|two| usize::from(u16::from_be_bytes(*two)));
        if bytes.len() > PACKET_MAX || counts.sum::<usize>() > ENTRIES_MAX {
            return Err(MessageError::TooLarge);
        }
        let packet = Packet::parse(bytes).map_err(|_| MessageError::Malformed)?;
        if packet.opcode() != OPCODE::StandardQuery || packet.rcode() != RCODE::NoError {
            return Err(MessageError::Foreign);
        }
        let response = packet.has_flags(PacketFlag::RESPONSE);
        let additional = packet.additional_records.iter().filter(|_| response);
        Ok(Self {
            id: packet.id(),
            response,
            truncated: packet.has_flags(PacketFlag::TRUNCATION),
            questions: packet.questions.iter().filter_map(question).collect(),
            records: packet.answers.iter().chain(additional).filter_map(record).collect(),
        })
    }

    /// The packet; `None` for what cannot be written, which nothing of ours is.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut packet = if self.response {
            let mut packet = Packet::new_reply(self.id);
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
            packet
        } else {
            Packet::new_query(self.id)
        };
        if self.truncated {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        for question in &self.questions {
            packet.questions.push(simple_dns::Question::new(
                question.name.write(),
                question.kind.write(),
                QCLASS::CLASS(CLASS::IN),
                question.unicast,
            ));
        }
        for record in &self.records {
            packet.answers.push(record.write()?);
        }
        packet.build_bytes_vec_compressed().ok()
    }
}

fn question(question: &simple_dns::Question<'_>) -> Option<Question> {
    if !matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN)) {
        return None;
    }
    let kind = match question.qtype {
        QTYPE::TYPE(TYPE::PTR) => Kind::Ptr,
        QTYPE::TYPE(TYPE::SRV) => Kind::Srv,
        QTYPE::TYPE(TYPE::TXT) => Kind::Txt,
        QTYPE::TYPE(TYPE::A) => Kind::A,
        QTYPE::TYPE(TYPE::AAAA) => Kind::Aaaa,
        QTYPE::ANY => Kind::Any,
        _ => Kind::Other,
    };
    Some(Question { name: Name::read(&question.qname)?, kind, unicast: question.unicast_response })
}

impl Kind {
    fn write(self) -> QTYPE {
        match self {
            Self::Ptr => TYPE::PTR.into(),
            Self::Srv => TYPE::SRV.into(),
            Self::Txt => TYPE::TXT.into(),
            Self::A => TYPE::A.into(),
            Self::Aaaa => TYPE::AAAA.into(),
            Self::Any | Self::Other => QTYPE::ANY,
        }
    }
}

fn record(record: &ResourceRecord<'_>) -> Option<Record> {
    if record.class != CLASS::IN {
        return None;
    }
    let data = match &record.rdata {
        RData::PTR(name) => Data::Ptr(Name::read(&name.0)?),
        RData::SRV(srv) => Data::Srv { port: srv.port, target: Name::read(&srv.target)? },
        RData::TXT(txt) => Data::Txt(strings(txt)),
        RData::A(a) => Data::Addr(Ipv4Addr::from_bits(a.address).into()),
        RData::AAAA(aaaa) => Data::Addr(Ipv6Addr::from_bits(aaaa.address).into()),
        _ => return None,
    };
    let name = Name::read(&record.name)?;
    Some(Record { name, flush: record.cache_flush, ttl: record.ttl, data })
}

/// The strings of a TXT record as they were on the wire.
fn strings(txt: &TXT<'_>) -> Box<[u8]> {
    let mut wire = Vec::new();
    for (key, value) in txt.iter_raw() {
        let length = key.len() + value.map_or(0, |value| value.len() + 1);
        wire.push(u8::try_from(length).unwrap_or(u8::MAX));
        wire.extend_from_slice(key);
        if let Some(value) = value {
            wire.push(b'=');
            wire.extend_from_slice(value);
        }
    }
    wire.into_boxed_slice()
}

impl Record {
    fn write(&self) -> Option<ResourceRecord<'_>> {
        let data = match &self.data {
            Data::Ptr(name) => RData::PTR(PTR(name.write())),
            Data::Srv { port, target } => {
                RData::SRV(SRV { priority: 0, weight: 0, port: *port, target: target.write() })
            }
            Data::Txt(wire) => {
                let mut txt = TXT::new();
                let mut rest = &wire[..];
                while let Some((length, tail)) = rest.split_first() {
                    let (string, tail) = tail.split_at_checked(usize::from(*length))?;
                    rest = tail;
                    txt.add_char_string(CharacterString::new(string).ok()?);
                }
                RData::TXT(txt)
            }
            Data::Addr(IpAddr::V4(ip)) => RData::A(A { address: ip.to_bits() }),
            Data::Addr(IpAddr::V6(ip)) => RData::AAAA(AAAA { address: ip.to_bits() }),
            Data::OnlyAddrs { v4, v6 } => {
                // Types 1 and 28, counted from the first byte's highest bit.
                let bits = if *v6 {
                    vec![u8::from(*v4) << 6, 0, 0, 1 << 3]
                } else {
                    vec![u8::from(*v4) << 6]
                };
                RData::NSEC(NSEC {
                    next_name: self.name.write(),
                    type_bit_maps: vec![NsecTypeBitMap {
                        window_block: 0,
                        bitmap: Cow::Owned(bits),
                    }],
                })
            }
        };
        let record = ResourceRecord::new(self.name.write(), CLASS::IN, self.ttl, data);
        Some(record.with_cache_flush(self.flush))
    }
}

#[cfg(test)]
mod tests;
