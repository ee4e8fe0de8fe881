//! Certificates and keys out of PEM, as they stand in a Secret. What cannot be used is refused here, so that no
//! connection is ever made with less than its owner wrote down. Errors name the key of the Secret and none of its bytes.

use ring::digest::{Context, SHA256};
use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A Secret holds no more than this in all.
const PEM_MAX: usize = 1 << 20;
/// A bundle of every public authority has some 150 certificates.
const AUTHORITIES_MAX: usize = 512;
/// A host reads the whole chain at each handshake; real ones have two or three.
const CHAIN_MAX: usize = 10;

/// Why certificates or a key cannot be used; the text tells a person what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsMaterialError {
    #[error("{0} is larger than 1 MiB")]
    TooLarge(&'static str),
    #[error("{0} has no certificate in PEM: it must begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate(&'static str),
    #[error("{0} has a certificate that cannot be read")]
    BadCertificate(&'static str),
    #[error("{0} has too many certificates: an authority's bundle may have 512, a chain 10")]
    TooMany(&'static str),
    #[error("tls.key has no private key in PEM; it must be PKCS#8, PKCS#1 or SEC1 without a passphrase")]
    NoKey,
    #[error("tls.key has a private key that cannot be used; use RSA of 2048 to 8192 bits, ECDSA or Ed25519")]
    BadKey,
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    Mismatch,
}

/// About how much memory material takes, and where: copies of one share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Of no other material while a copy of this is held.
    pub place: usize,
    pub bytes: usize,
}

/// The authorities that may have signed a host's certificate, in place of the platform's.
#[derive(Clone)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    digest: Digest,
    bytes: usize,
}

impl Authorities {
    /// From `ca.crt`: one certificate or several.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsMaterialError> {
        let certificates = certificates("ca.crt", pem, AUTHORITIES_MAX)?;
        let digest = Digest::of(certificates.iter().map(AsRef::as_ref));
        let bytes = certificates.iter().map(|certificate| certificate.len()).sum();
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            // One that cannot be read may be the one that is needed: better to say so than to fail at each poll.
            roots.add(certificate).map_err(|_| TlsMaterialError::BadCertificate("ca.crt"))?;
        }
        Ok(Self { roots: Arc::new(roots), digest, bytes })
    }

    pub fn weight(&self) -> Weight {
        Weight { place: Arc::as_ptr(&self.roots).addr(), bytes: self.bytes }
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }
}

/// A certificate with its key, shown to hosts that want to know who asks.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    digest: Digest,
    bytes: usize,
}

impl Identity {
    /// From `tls.crt`, the certificate and then whoever signed it, and `tls.key`, which must be its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsMaterialError> {
        let chain = certificates("tls.crt", chain, CHAIN_MAX)?;
        if key.len() > PEM_MAX {
            return Err(TlsMaterialError::TooLarge("tls.key"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsMaterialError::NoKey)?;
        let digest = Digest::of(chain.iter().map(AsRef::as_ref).chain([key.secret_der()]));
        let bytes = chain.iter().map(|certificate| certificate.len()).sum::<usize>() + key.secret_der().len();
        let certified =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsMaterialError::Mismatch,
                Error::InvalidCertificate(_) => TlsMaterialError::BadCertificate("tls.crt"),
                _ => TlsMaterialError::BadKey,
            })?;
        Ok(Self { certified: Arc::new(certified), digest, bytes })
    }

    pub fn weight(&self) -> Weight {
        Weight { place: Arc::as_ptr(&self.certified).addr(), bytes: self.bytes }
    }

    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

fn certificates(
    key: &'static str,
    pem: &[u8],
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, TlsMaterialError> {
    if pem.len() > PEM_MAX {
        return Err(TlsMaterialError::TooLarge(key));
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if certificates.len() == most {
            return Err(TlsMaterialError::TooMany(key));
        }
        certificates.push(certificate.map_err(|_| TlsMaterialError::BadCertificate(key))?);
    }
    if certificates.is_empty() { Err(TlsMaterialError::NoCertificate(key)) } else { Ok(certificates) }
}

/// Stands for material wherever it is compared, so that neither a comparison nor a hash walks over keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Digest([u8; 32]);

impl Digest {
    fn of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            // With their lengths, so that no two lists of parts run together into the same bytes.
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}

/// Both are what their digest says, and print as how much they hold.
macro_rules! by_digest {
    ($type:ty, |$self:ident| $count:expr) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.digest == other.digest
            }
        }
        impl Eq for $type {}
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.digest.hash(state);
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&$self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} certificates)", stringify!($type), $count)
            }
        }
    };
}

by_digest!(Authorities, |self| self.roots.len());
by_digest!(Identity, |self| self.certified.cert.len());

#[cfg(test)]
#[path = "material_tests.rs"]
mod tests;
