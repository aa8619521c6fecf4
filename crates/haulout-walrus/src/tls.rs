//! TLS to storage nodes: the certificate's key is the node's network key from the chain.
//!
//! The reference client accepts a certificate that is valid for a trust anchor made of the pinned
//! key (or for the system's authorities) *and* whose key is the network key. Whoever has that key can
//! make the first condition true for any name and any date, so the key alone decides; names and
//! dates are ignored, and an expired certificate is accepted as there.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::committee::NETWORK_KEY_BYTES;

/// A `SubjectPublicKeyInfo` of a P-256 key up to the point: algorithm, curve, bit string, "uncompressed".
const P256_SPKI: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The compressed form of the P-256 key in a `SubjectPublicKeyInfo`; `None` for other keys.
///
/// That the point is on the curve is checked when a signature is verified with it.
fn compressed_key(spki: &[u8]) -> Option<[u8; NETWORK_KEY_BYTES]> {
    let point: &[u8; 64] = spki.strip_prefix(&P256_SPKI)?.try_into().ok()?;
    let mut key = [0; NETWORK_KEY_BYTES];
    key[0] = 2 | (point[63] & 1);
    key[1..].copy_from_slice(&point[..32]);
    Some(key)
}

/// The P-256 key of a certificate (DER), compressed, as the chain has a node's; `None` for a certificate
/// that is malformed or has another kind of key.
#[must_use]
pub fn network_key(certificate: &[u8]) -> Option<[u8; NETWORK_KEY_BYTES]> {
    let der = CertificateDer::from_slice(certificate);
    let parsed = ParsedCertificate::try_from(&der).ok()?;
    compressed_key(&parsed.subject_public_key_info())
}

/// Accepts exactly one key.
#[derive(Debug)]
struct PinnedKey {
    key: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match network_key(end_entity) {
            Some(key) if key[..] == self.key[..] => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

/// Configuration for a node with this network key (33 bytes, compressed P-256). Speaks HTTP/2 only.
pub(crate) fn pinned(key: &[u8]) -> Result<ClientConfig, Error> {
    let crypto = crypto();
    let algorithms = crypto.signature_verification_algorithms;
    let verifier = PinnedKey { key: key.to_vec(), algorithms };
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Configuration for servers with a certificate of one of the system's authorities.
pub(crate) fn system() -> Result<ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn certificates_of_real_nodes_have_their_network_keys() {
        let index: serde_json::Value =
            serde_json::from_slice(include_bytes!("../tests/data/exchanges.json")).unwrap();
        let bodies = include_bytes!("../tests/data/exchanges.bin");
        let nodes = index["nodes"].as_array().unwrap();
        let key = |node: &serde_json::Value| {
            let text = node["network_public_key"].as_str().unwrap();
            data_encoding::BASE64.decode(text.as_bytes()).unwrap()
        };
        assert_eq!(nodes.len(), 5);
        for (at, node) in nodes.iter().enumerate() {
            let part: (usize, usize) = serde_json::from_value(node["certificate"].clone()).unwrap();
            let certificate = CertificateDer::from(bodies[part.0..part.0 + part.1].to_vec());
            let accepts = |key: Vec<u8>| {
                let algorithms = crypto().signature_verification_algorithms;
                let pinned = PinnedKey { key, algorithms };
                // Any name and any time will do.
                let name = ServerName::try_from("elsewhere.example").unwrap();
                let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
                pinned.verify_server_cert(&certificate, &[], &name, &[], now).is_ok()
            };
            assert!(accepts(key(node)), "node {at}");
            assert!(!accepts(key(&nodes[(at + 1) % 5])));
            let mut mirrored = key(node);
            mirrored[0] ^= 1;
            assert!(!accepts(mirrored), "the same x on the other side of the curve");
            assert!(!accepts(Vec::new()));
        }
    }
}
