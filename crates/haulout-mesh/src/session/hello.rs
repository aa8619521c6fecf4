//! The first exchange on a connection: versions, and proof of membership.

use haulout_swarm::PeerId;
use quinn::{Connection, RecvStream};
use tokio::io::AsyncReadExt;

use crate::api::Membership;
use crate::frames::{FrameError, HELLO_BODY_MAX, Hello, checked_len};
use crate::membership::{EXPORTER_LABEL, EXPORTER_LEN, Role};
use crate::registry::Shared;

/// Why a hello failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("no hello in time")]
    Timeout,
    #[error("the connection broke during the hello: {0}")]
    Io(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the TLS session gives no keying material")]
    Exporter,
}

/// Exchanges hellos on the first bidirectional stream; the dialler speaks first. Gives what the peer proved, and the minor
/// version that both speak.
///
/// The accepter shows its proof only to who has shown one: a stranger learns nothing to try guesses against.
pub(super) async fn hello(
    shared: &Shared,
    conn: &Connection,
    peer: PeerId,
    role: Role,
) -> Result<(Membership, u16), HelloError> {
    let mut exporter = [0; EXPORTER_LEN];
    conn.export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .map_err(|_| HelloError::Exporter)?;
    let (dialler, accepter) =
        if role == Role::Dialler { (shared.id, peer) } else { (peer, shared.id) };
    let secret = shared.config.secret.as_ref();
    let own = secret.map(|secret| secret.prove(role, &exporter, &dialler, &accepter));
    let judge = |theirs: &Hello| {
        let proven = secret.zip(theirs.proof.as_ref()).is_some_and(|(secret, proof)| {
            secret.verify(role.other(), &exporter, &dialler, &accepter, proof)
        });
        if proven { Membership::Member } else { Membership::Stranger }
    };
    if role == Role::Dialler {
        let (mut send, mut recv) = conn.open_bi().await.map_err(io)?;
        send.write_all(&Hello { minor: shared.config.minor, proof: own }.encode())
            .await
            .map_err(io)?;
        let _ = send.finish();
        let theirs = read_hello(&mut recv).await?;
        Ok((judge(&theirs), theirs.minor.min(shared.config.minor)))
    } else {
        let (mut send, mut recv) = conn.accept_bi().await.map_err(io)?;
        let theirs = read_hello(&mut recv).await?;
        let membership = judge(&theirs);
        let proof = own.filter(|_| membership == Membership::Member);
        send.write_all(&Hello { minor: shared.config.minor, proof }.encode()).await.map_err(io)?;
        let _ = send.finish();
        Ok((membership, theirs.minor.min(shared.config.minor)))
    }
}

fn io(error: impl std::fmt::Display) -> HelloError {
    HelloError::Io(error.to_string())
}

async fn read_hello(recv: &mut RecvStream) -> Result<Hello, HelloError> {
    let len = recv.read_u16().await.map_err(io)?;
    let len = checked_len("hello", u32::from(len), HELLO_BODY_MAX)?;
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(io)?;
    Ok(Hello::decode(&body)?)
}
