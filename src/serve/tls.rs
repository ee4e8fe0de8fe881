//! The certificate of the main listener: from files that are read again when they change, or self-signed.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 only. It must not write anything: a private key that is made here stays in memory.

use axum_server::tls_rustls::RustlsConfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A renewed certificate has weeks to spare; the kubelet itself takes about a minute to update a mounted Secret.
const REREAD_EVERY: Duration = Duration::from_mins(1);

/// Made anew at each start, so this bounds what a stolen key is good for rather than how long a process may live:
/// nobody can verify a self-signed certificate that changes with each start anyway.
const SELF_SIGNED_FOR: Duration = Duration::from_hours(24 * 365);

/// Clocks of client and operator may differ.
const BACKDATED: Duration = Duration::from_hours(1);

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct CertFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--{flag} {}: {source}", path.display())]
    Read { flag: &'static str, path: PathBuf, source: io::Error },
    #[error("--{flag} {}: {problem}", path.display())]
    Pem { flag: &'static str, path: PathBuf, problem: String },
    #[error("--tls-cert-file and --tls-key-file do not make a certificate: {0}")]
    Pair(rustls::Error),
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
}

/// The certificate in use, and where it comes from.
pub struct Certificate {
    pub config: RustlsConfig,
    source: Option<(CertFiles, Fingerprint)>,
}

/// Digest of both files' bytes. Contents rather than times: a volume's atomic swap may keep the times.
type Fingerprint = [u8; 32];

impl Certificate {
    pub fn from_files(files: CertFiles) -> Result<Self, TlsError> {
        let (config, fingerprint) = load(&files)?;
        Ok(Self { config: RustlsConfig::from_config(config), source: Some((files, fingerprint)) })
    }

    /// A certificate for this machine and the operator's Service in that namespace.
    pub fn self_signed(namespace: &str) -> Result<Self, TlsError> {
        let config = self_signed(namespace).map_err(|error| TlsError::SelfSigned(error.to_string()))?;
        let config =
            server_config(config.0, config.1).map_err(|error| TlsError::SelfSigned(error.to_string()))?;
        Ok(Self { config: RustlsConfig::from_config(config), source: None })
    }

    /// Follows the files for ever. What cannot be used is logged once, and the last good certificate stays.
    pub async fn keep_fresh(self) {
        let Some((files, mut in_use)) = self.source else { return std::future::pending().await };
        let mut complaint = String::new();
        loop {
            tokio::time::sleep(REREAD_EVERY).await;
            complaint = match reread(&files, in_use).await {
                Ok(None) => String::new(),
                Ok(Some((config, fingerprint))) => {
                    self.config.reload_from_config(config);
                    in_use = fingerprint;
                    tracing::info!(file = %files.cert.display(), "using the new certificate");
                    String::new()
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!(error, "keeping the last certificate");
                    }
                    error
                }
            };
        }
    }
}

type Loaded = (Arc<ServerConfig>, Fingerprint);

/// The files' certificate if they changed. File systems block, so this has a thread of its own.
async fn reread(files: &CertFiles, in_use: Fingerprint) -> Result<Option<Loaded>, TlsError> {
    let files = files.clone();
    let loaded = tokio::task::spawn_blocking(move || load(&files)).await;
    // The task is cancelled only when the runtime ends.
    loaded.map_or(Ok(None), |loaded| Ok(Some(loaded?).filter(|(_, fingerprint)| *fingerprint != in_use)))
}

fn load(files: &CertFiles) -> Result<Loaded, TlsError> {
    let cert = read("tls-cert-file", &files.cert)?;
    let key = read("tls-key-file", &files.key)?;
    let chain = CertificateDer::pem_slice_iter(&cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem("tls-cert-file", &files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(pem("tls-cert-file", &files.cert, "no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| pem("tls-key-file", &files.key, error.to_string()))?;
    let config = server_config(chain, private).map_err(TlsError::Pair)?;
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest(&SHA256, &[cert, key].concat()).as_ref());
    Ok((config, fingerprint))
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { flag, path: path.to_owned(), source })
}

fn pem(flag: &'static str, path: &Path, problem: String) -> TlsError {
    TlsError::Pem { flag, path: path.to_owned(), problem }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // One request at a time on a connection is all that anybody needs, and all that the bounds are made for.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn self_signed(
    namespace: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names(namespace)
        .into_iter()
        .filter_map(|name| name.try_into().ok().map(rcgen::SanType::DnsName))
        .chain([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(rcgen::SanType::IpAddress))
        .collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ollama-fleet-operator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + SELF_SIGNED_FOR).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Ok((vec![certificate.der().clone()], private))
}

/// Names by which this process may be called.
fn names(namespace: &str) -> Vec<String> {
    let service = "ollama-fleet-operator";
    let mut names = vec![
        "localhost".to_owned(),
        service.to_owned(),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ];
    names.extend(host_name());
    names
}

/// A pod's `HOSTNAME` is its name; elsewhere the kernel knows.
fn host_name() -> Option<String> {
    let name =
        std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname")).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &CertFiles, name: &str) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        key
    }

    fn files() -> (tempfile::TempDir, CertFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = CertFiles { cert: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
        (folder, files)
    }

    #[tokio::test]
    async fn changed_files_are_taken_and_unchanged_ones_left() {
        let (_folder, files) = files();
        write(&files, "first.svc");
        let (_, first) = load(&files).unwrap();
        assert!(reread(&files, first).await.unwrap().is_none());
        write(&files, "second.svc");
        let (_, second) = reread(&files, first).await.unwrap().unwrap();
        assert!(reread(&files, second).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused() {
        let (_folder, files) = files();
        write(&files, "first.svc");
        let (_, first) = load(&files).unwrap();
        let other = KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        assert!(matches!(reread(&files, first).await, Err(TlsError::Pair(_))));
    }

    #[test]
    fn errors_name_the_flag_and_the_file() {
        let (_folder, files) = files();
        let text = || Certificate::from_files(files.clone()).err().unwrap().to_string();
        assert!(text().starts_with(&format!("--tls-cert-file {}: ", files.cert.display())), "{}", text());
        write(&files, "first.svc");
        std::fs::write(&files.key, "nothing").unwrap();
        assert!(text().starts_with(&format!("--tls-key-file {}: ", files.key.display())), "{}", text());
        std::fs::write(&files.cert, "nothing").unwrap();
        assert!(text().contains("no certificate in it"), "{}", text());
    }

    #[test]
    fn the_self_signed_certificate_names_the_service() {
        let names = names("fleet");
        for name in ["localhost", "ollama-fleet-operator", "ollama-fleet-operator.fleet.svc"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        Certificate::self_signed("fleet").unwrap();
    }
}
