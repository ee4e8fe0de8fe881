use super::*;
use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;

/// RSA of 2048 bits in PKCS#1, made for this test and used nowhere; ring makes none.
const RSA_KEY: &str = include_str!("testdata/rsa.key");
const RSA_CERTIFICATE: &str = include_str!("testdata/rsa.crt");

struct Made {
    certificate: String,
    key: KeyPair,
}

fn made() -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["gpu1.lab".to_owned()]).unwrap().self_signed(&key).unwrap();
    Made { certificate: certificate.pem(), key }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text: String = base64(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// Base64, by hand: no crate of the tree does it for tests alone.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            (0..3).fold(0, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or_default()));
        for digit in 0..4 {
            let index = usize::try_from(word >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= chunk.len() { DIGITS[index].into() } else { '=' });
        }
    }
    text
}

/// The key inside of PKCS#8 of P-256 is the same in SEC1: the last 109 bytes.
fn sec1(key: &KeyPair) -> String {
    let der = key.serialize_der();
    pem("EC PRIVATE KEY", &der[der.len() - 109..])
}

#[test]
fn keys_are_read_in_every_usual_form() {
    let Made { certificate, key } = made();
    for text in [key.serialize_pem(), sec1(&key), format!("a comment\n{}", key.serialize_pem())] {
        Identity::from_pem(certificate.as_bytes(), text.as_bytes()).unwrap();
    }
    Identity::from_pem(RSA_CERTIFICATE.as_bytes(), RSA_KEY.as_bytes()).unwrap();
}

#[rstest]
#[case::nothing("", TlsMaterialError::NoCertificate("tls.crt"))]
#[case::words("no certificate", TlsMaterialError::NoCertificate("tls.crt"))]
#[case::garbage(
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    TlsMaterialError::BadCertificate("tls.crt")
)]
#[case::cut("-----BEGIN CERTIFICATE-----\nMIIB", TlsMaterialError::BadCertificate("tls.crt"))]
fn what_is_no_certificate_is_refused(#[case] chain: &str, #[case] error: TlsMaterialError) {
    let key = made().key.serialize_pem();
    assert_eq!(Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err(), error);
}

#[rstest]
#[case::nothing(String::new(), TlsMaterialError::NoKey)]
#[case::the_certificate(made().certificate, TlsMaterialError::NoKey)]
#[case::with_a_passphrase(pem("ENCRYPTED PRIVATE KEY", &[48; 100]), TlsMaterialError::NoKey)]
#[case::garbage(pem("PRIVATE KEY", &[48; 100]), TlsMaterialError::BadKey)]
#[case::of_another(made().key.serialize_pem(), TlsMaterialError::Mismatch)]
#[case::of_another_kind(RSA_KEY.to_owned(), TlsMaterialError::Mismatch)]
#[case::too_large("x".repeat(PEM_MAX + 1), TlsMaterialError::TooLarge("tls.key"))]
fn a_key_that_is_not_that_of_the_certificate_is_refused(
    #[case] key: String,
    #[case] error: TlsMaterialError,
) {
    assert_eq!(Identity::from_pem(made().certificate.as_bytes(), key.as_bytes()).unwrap_err(), error);
}

#[test]
fn a_chain_may_be_long_but_not_endless() {
    let Made { certificate, key } = made();
    let chain = |length: usize| {
        Identity::from_pem(certificate.repeat(length).as_bytes(), key.serialize_pem().as_bytes())
    };
    assert!(chain(CHAIN_MAX).is_ok());
    assert_eq!(chain(CHAIN_MAX + 1).unwrap_err(), TlsMaterialError::TooMany("tls.crt"));
}

#[test]
fn authorities_are_read_or_refused_whole() {
    let (one, other) = (made().certificate, made().certificate);
    let both = format!("one\n{one}\nother\n{other}");
    assert_eq!(Authorities::from_pem(both.as_bytes()).unwrap().roots().len(), 2);
    let refused = |pem: &str| Authorities::from_pem(pem.as_bytes()).unwrap_err();
    assert_eq!(refused(""), TlsMaterialError::NoCertificate("ca.crt"));
    assert_eq!(refused(&made().key.serialize_pem()), TlsMaterialError::NoCertificate("ca.crt"));
    let spoiled = format!("{one}{}", pem("CERTIFICATE", b"garbage"));
    assert_eq!(refused(&spoiled), TlsMaterialError::BadCertificate("ca.crt"));
    assert_eq!(refused(&one.repeat(AUTHORITIES_MAX + 1)), TlsMaterialError::TooMany("ca.crt"));
    assert_eq!(refused(&"x".repeat(PEM_MAX + 1)), TlsMaterialError::TooLarge("ca.crt"));
    assert!(Authorities::from_pem("x".repeat(PEM_MAX).as_bytes()).is_err());
}

#[test]
fn equal_material_is_equal_and_none_of_it_is_printed() {
    let Made { certificate, key } = made();
    let (text, other) = (key.serialize_pem(), made());
    let identity = |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let one = identity(&certificate, &text);
    assert_eq!(one, identity(&format!("\n{certificate}"), &format!("{text}\n")));
    assert_ne!(one, identity(&other.certificate, &other.key.serialize_pem()));
    assert_eq!(format!("{one:?}"), "Identity(1 certificates)");
    let authorities = |pem: &str| Authorities::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(authorities(&certificate), authorities(&certificate));
    assert_ne!(authorities(&certificate), authorities(&other.certificate));
    assert_eq!(format!("{:?}", authorities(&certificate)), "Authorities(1 certificates)");
}
