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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Failure, tls::Identity};
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
    use rustls::{ClientConnection, ServerConfig, ServerConnection, pki_types::PrivateKeyDer};

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn host(issuer: &Issuer) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["gpu1.lab".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }

    fn own(issuer: &Issuer) -> TlsSettings {
        let authorities = Some(Authorities::from_pem(issuer.pem().as_bytes()).unwrap());
        TlsSettings { authorities, ..TlsSettings::default() }
    }

    /// Both sides in one thread, without a socket.
    fn handshake(client: ClientConfig, host: ServerConfig) -> Result<(), Failure> {
        let name = ServerName::try_from("gpu1.lab").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut host = ServerConnection::new(Arc::new(host)).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            host.read_tls(&mut bytes.as_slice()).unwrap();
            host.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            host.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().map_err(|error| Failure::of_tls(&error))?;
        }
        assert!(!client.is_handshaking());
        Ok(())
    }

    /// A host's own authority stands in place of the platform's, not beside it: whoever pins one wants no other.
    #[test]
    fn own_authorities_replace_the_platforms() {
        let (platform, private, stranger) = (authority(), authority(), authority());
        let mut configs = ClientConfigs::new().unwrap();
        configs.platform = own(&platform).authorities.unwrap().roots();
        let by = |settings: &TlsSettings, issuer| handshake(configs.make(settings), host(issuer));
        assert_eq!(by(&TlsSettings::default(), &platform), Ok(()));
        assert_eq!(by(&TlsSettings::default(), &private), Err(Failure::TlsUnknownIssuer));
        assert_eq!(by(&own(&private), &private), Ok(()));
        assert_eq!(by(&own(&private), &platform), Err(Failure::TlsUnknownIssuer));
        assert_eq!(by(&own(&private), &stranger), Err(Failure::TlsUnknownIssuer));
        let unchecked = TlsSettings { skip_verify: true, ..own(&private) };
        assert_eq!(by(&unchecked, &stranger), Ok(()));
    }

    #[test]
    fn the_client_certificate_goes_along_with_every_way_to_trust() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["operator".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let identity = Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).ok();
        let configs = ClientConfigs::new().unwrap();
        for skip_verify in [false, true] {
            let with = TlsSettings { identity: identity.clone(), skip_verify, ..TlsSettings::default() };
            assert!(configs.make(&with).client_auth_cert_resolver.has_certs());
            let without = TlsSettings { skip_verify, ..TlsSettings::default() };
            assert!(!configs.make(&without).client_auth_cert_resolver.has_certs());
        }
    }
}
