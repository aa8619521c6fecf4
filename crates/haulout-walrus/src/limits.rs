//! Every limit of this crate, with its unit and its reason.

use std::time::Duration;

/// Longest wait for TCP, TLS and the HTTP/2 preface together: what the reference client allows.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failed dial further requests to that node fail at once for this long, so that fifty
/// slivers of a node that is down cost one attempt.
pub const DIAL_PAUSE: Duration = Duration::from_secs(2);

/// Longest silence within an answer. A live node that reads from a slow disk takes milliseconds.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a request may take at all, besides [`RATE_MIN`] for its bytes.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Slowest transfer that is waited for, in bytes per second: a node that trickles is as good as down.
pub const RATE_MIN: u64 = 32 << 10;

/// Most bytes of an error's body that are read. Real ones have about 300.
pub const ERROR_BODY_MAX: usize = 16 << 10;

/// Most bytes of a JSON answer that are read. Real ones have at most 2 KiB (detailed health).
pub const JSON_BODY_MAX: usize = 64 << 10;

/// Longest text of a node that is kept for messages, in characters.
pub const MESSAGE_CHARS_MAX: usize = 300;

/// HTTP/2 window of a stream, in bytes: 50 ms of 300 Mbit/s.
pub const STREAM_WINDOW: u32 = 2 << 20;

/// HTTP/2 window of a connection, in bytes: what one node can make us buffer.
pub const CONNECTION_WINDOW: u32 = 8 << 20;

/// Most bytes of headers of an answer; real ones have about 300.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Interval and patience of HTTP/2 pings, as in the reference client.
pub const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5));

/// Most requests in flight to one node. Nodes allow 1,000 streams; a few hide the round trip.
pub const NODE_REQUESTS_MAX: usize = 16;

/// Most bytes of slivers in flight in one read or write, unless a single sliver has more:
/// bounds memory beside the blob itself.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Most nodes whose metadata is asked for at the same time, hedges included.
pub const METADATA_PARALLEL_MAX: usize = 3;

/// Bounds of the wait before a request is hedged. The lower one keeps jitter from doubling the
/// traffic, the upper one applies until there are measurements.
pub const HEDGE_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A request is late after this many times the 90th percentile of those that were answered.
pub const HEDGE_FACTOR: u32 = 2;

/// The same where slivers are fetched once for many readers: what fetches them takes over from what is
/// slow long before.
pub const HEDGE_SHARED: Duration = Duration::from_secs(15);

/// Answers remembered for that percentile.
pub const LATENCY_SAMPLES: usize = 128;

/// Bounds of the pause that a `Retry-After` (or 429 and 503 without one) puts on a node.
pub const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often one sliver is asked for again of a node that was busy.
pub const BUSY_RETRIES: u8 = 3;

/// How often a piece is asked for again after somebody between its node and us spoilt it: each time
/// whoever did it is found out, so this is how many liars one piece may meet.
pub const SPOILT_RETRIES: u8 = 4;

/// Tries of a whole read, each with committees read anew, as in the reference client.
pub const READ_TRIES: u32 = 5;

/// Pause before the second and later tries: doubles from the first to the second.
pub const READ_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Most slivers that are rebuilt from symbols before the whole blob is read instead: the
/// reference client's number.
pub const RECOVERED_SLIVERS_MAX: usize = 100;

/// Largest blob that is read into memory unless the caller sets another limit, in bytes.
pub const BLOB_BYTES_MAX: u64 = 4 << 30;

/// Retries of a request of a write, and the bounds of the pause between them (doubling, jittered):
/// the reference client's numbers.
pub const WRITE_RETRIES: u32 = 5;
/// See [`WRITE_RETRIES`].
pub const WRITE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Retries at a node that cannot be reached: a quorum does not need it, and a write that fails can
/// be resumed.
pub const UNREACHABLE_RETRIES: u32 = 2;

/// Wait between registration on chain and the first upload, for nodes to see the event.
pub const REGISTRATION_LEAD: Duration = Duration::from_millis(200);

/// Once a quorum has everything the other nodes get half the time it took, plus this.
pub const QUORUM_GRACE: Duration = Duration::from_millis(500);

/// Most nodes written to at the same time.
pub const WRITE_NODES_MAX: usize = 32;

/// Slivers of at least this many bytes are asked for before they are sent again, where the node
/// already had the metadata.
pub const STATUS_CHECK_BYTES: usize = 5_560;

/// Uploads that are repeated when nodes say that they miss slivers.
pub const REUPLOAD_ROUNDS: u32 = 2;

/// How often confirmations are collected anew because the epoch changed before certification.
pub const CERTIFY_TRIES: u32 = 3;

/// Most bytes of a journal of a write.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 10;

/// Most bytes of a committee file: one of 111 nodes and 1,000 shards has about 50 KiB.
pub const COMMITTEE_FILE_BYTES_MAX: u64 = 1 << 20;

/// Most aggregators in one: more are never asked.
pub const AGGREGATORS_MAX: usize = 16;

/// Longest name of a node in one, in characters: names are for tables that people read.
pub const NODE_NAME_CHARS_MAX: usize = 256;
