//! What rustls is told. TLS 1.2 and 1.3, and the platform's roots where it has any, else the embedded ones.

use super::{Authorities, TlsSettings};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use std::sync::Arc;

/// Makes configurations, all from the same begin and with the same roots.
pub struct ClientConfigs {
    begin: ConfigBuilder<ClientConfig, WantsVerifier>,
    platform: Arc<RootCertStore>,
}

impl ClientConfigs {
    /// Reads the platform's roots, once.
    pub fn new() -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let begin = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        Ok(Self { begin, platform: Arc::new(roots) })
    }

    pub fn make(&self, settings: &TlsSettings) -> ClientConfig {
        let roots =
            settings.authorities.as_ref().map_or_else(|| Arc::clone(&self.platform), Authorities::roots);
        let builder = self.begin.clone().with_root_certificates(roots);
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())))
            }
        };
        if settings.skip_verify {
            config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate(ring::default_provider())));
        }
        // A resumed session shows no certificate: one that expired, or was replaced because its key was stolen, would
        // be good for as long as the host gives out tickets.
        config.resumption = Resumption::disabled();
        config
    }
}

/// For `insecureSkipVerify`: any certificate counts; signatures of the handshake are still checked.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
