//! TLS 1.3 with raw Ed25519 public keys on both sides (RFC 7250): no certificates, no names, no authorities.
//!
//! The dialler pins the key it expects; the accepter takes any Ed25519 key and learns from the handshake which one it is.
//! Resumption and 0-RTT are off: every connection proves both keys anew, and nothing can be replayed.

use std::any::Any;
use std::sync::Arc;

use haulout_swarm::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::identity::{Identity, peer_of_spki, spki};

/// Application protocol: its number is the major version of the wire protocol.
pub(crate) const ALPN: &[u8] = b"haulout/1";
/// The server name every dialler sends: names mean nothing here.
pub(crate) const SERVER_NAME: &str = "haulout.invalid";

/// Takes any Ed25519 key, or exactly the pinned one.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new(expected: Option<PeerId>) -> Self {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Self { expected, algorithms }
    }

    fn check(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !others.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let peer = peer_of_spki(key).ok_or(CertificateError::BadEncoding)?;
        match self.expected {
            Some(expected) if expected != peer => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(CertificateError::BadSignature.into());
        }
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// TLS 1.2 is never negotiated (QUIC forbids it); if it were, it would fail here.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// AES-128 before AES-256: four rounds in fourteen fewer on every byte, and as far out of reach.
fn crypto() -> Arc<CryptoProvider> {
    let mut provider = provider::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

fn certified_key(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let private = PrivatePkcs8KeyDer::from(identity.pkcs8());
    let key = provider::sign::any_eddsa_type(&private)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&identity.id()))], key)))
}

/// Configuration of the accepting side: asks for the dialler's key and takes any Ed25519 one.
pub(crate) fn server(identity: &Identity) -> Result<rustls::ServerConfig, Error> {
    let key = certified_key(identity)?;
    let mut config = rustls::ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(KeyVerifier::new(None)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Configuration for dialling: exactly `expected`, or whoever answers.
pub(crate) fn client(
    identity: &Identity,
    expected: Option<PeerId>,
) -> Result<rustls::ClientConfig, Error> {
    let key = certified_key(identity)?;
    let mut config = rustls::ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier::new(expected)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// The peer's key from an established connection.
pub(crate) fn peer_of(identity: Option<Box<dyn Any>>) -> Option<PeerId> {
    let keys = identity?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match keys.as_slice() {
        [key] => peer_of_spki(key),
        _ => None,
    }
}
