//! What becomes of the values of a Secret, and that none of them is ever printed.

use super::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rstest::rstest;
use serde_json::{Map, Value, json};

fn secret(data: &[(&str, &[u8])]) -> Material {
    let data: Map<String, Value> =
        data.iter().map(|(key, value)| ((*key).to_owned(), BASE64_STANDARD.encode(value).into())).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
    Material::of(serde_json::from_value(secret).unwrap())
}

fn sent(data: &[(&str, &[u8])]) -> Result<String, Problem> {
    let material = secret(data);
    let value = material.authorization()?;
    assert!(value.is_sensitive());
    Ok(value.to_str().unwrap().to_owned())
}

fn pair() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["gpu1.lab".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

#[rstest]
#[case::token(&[("token", &b"abc.DEF-1_2~/+="[..])], "Bearer abc.DEF-1_2~/+=")]
#[case::token_before_a_password(&[("token", &b"t"[..]), ("username", b"u"), ("password", b"p")], "Bearer t")]
#[case::password(&[("username", &b"Aladdin"[..]), ("password", b"open sesame")], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
#[case::password_with_a_colon(&[("username", &b"u"[..]), ("password", b"a:b")], "Basic dTphOmI=")]
#[case::not_ascii(&[("username", "müller".as_bytes()), ("password", "ß€".as_bytes())], "Basic bcO8bGxlcjrDn+KCrA==")]
#[case::empty_password(&[("username", &b"key"[..]), ("password", b"")], "Basic a2V5Og==")]
#[case::other_keys_beside(&[("token", &b"t"[..]), ("other", b"\xff\n")], "Bearer t")]
fn what_is_sent(#[case] data: &[(&str, &[u8])], #[case] expected: &str) {
    assert_eq!(sent(data).unwrap(), expected);
}

#[rstest]
#[case::nothing(&[], Problem::LacksKey)]
#[case::another_key(&[("Token", &b"t"[..])], Problem::LacksKey)]
#[case::no_password(&[("username", &b"u"[..])], Problem::LacksKey)]
#[case::no_username(&[("password", &b"p"[..])], Problem::LacksKey)]
#[case::certificates_only(&[("ca.crt", &b"x"[..])], Problem::LacksKey)]
#[case::empty_token(&[("token", &b""[..])], Problem::Empty)]
#[case::empty_username(&[("username", &b""[..]), ("password", b"p")], Problem::Empty)]
#[case::not_utf8(&[("token", &b"t\xff"[..])], Problem::NotText)]
#[case::password_not_utf8(&[("username", &b"u"[..]), ("password", b"\xc3\x28")], Problem::NotText)]
#[case::line_break_at_the_end(&[("token", &b"t\n"[..])], Problem::Character)]
#[case::header_in_the_token(&[("token", &b"t\r\nX-Evil: 1"[..])], Problem::Character)]
#[case::nul(&[("token", &b"t\0"[..])], Problem::Character)]
#[case::delete(&[("token", &b"t\x7f"[..])], Problem::Character)]
#[case::c1(&[("token", "t\u{85}".as_bytes())], Problem::Character)]
#[case::space(&[("token", &b"a b"[..])], Problem::Character)]
#[case::space_at_the_end(&[("token", &b"a "[..])], Problem::Character)]
#[case::token_not_ascii(&[("token", "ü".as_bytes())], Problem::Character)]
#[case::line_break_in_a_password(&[("username", &b"u"[..]), ("password", b"p\n")], Problem::Character)]
#[case::tab_in_a_username(&[("username", &b"u\t"[..]), ("password", b"p")], Problem::Character)]
#[case::colon(&[("username", &b"a:b"[..]), ("password", b"p")], Problem::Colon)]
#[case::long_token(&[("token", &[b't'; VALUE_MAX + 1][..])], Problem::TooLong)]
#[case::bad_token_beside_a_password(&[("token", &b"\n"[..]), ("username", b"u"), ("password", b"p")], Problem::Character)]
fn what_is_refused(#[case] data: &[(&str, &[u8])], #[case] problem: Problem) {
    assert_eq!(sent(data), Err(problem));
}

#[test]
fn the_longest_token_fits_into_a_header() {
    assert_eq!(sent(&[("token", &[b't'; VALUE_MAX])]).unwrap().len(), "Bearer ".len() + VALUE_MAX);
}

#[test]
fn certificates_are_used_in_part_or_as_a_whole() {
    let (certificate, key) = pair();
    let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
    for (data, authorities, identity) in [
        (&[("ca.crt", certificate)][..], true, false),
        (&[("tls.crt", certificate), ("tls.key", key)], false, true),
        (&[("ca.crt", certificate), ("tls.crt", certificate), ("tls.key", key)], true, true),
        (&[("ca.crt", b""), ("tls.crt", certificate), ("tls.key", key)], false, true),
    ] {
        let material = secret(data);
        let certificates = material.certificates().unwrap();
        assert_eq!(
            (certificates.authorities.is_some(), certificates.identity.is_some()),
            (authorities, identity)
        );
    }
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let ((certificate, key), (_, other)) = (pair(), pair());
    let (certificate, key, other) = (certificate.as_bytes(), key.as_bytes(), other.as_bytes());
    let long = vec![b'\n'; PEM_MAX + 1];
    for (data, problem) in [
        (&[("token", &b"t"[..])][..], Problem::LacksKey),
        (&[("ca.crt", b"")], Problem::LacksKey),
        (&[("tls.crt", certificate)], Problem::LacksKey),
        (&[("ca.crt", certificate), ("tls.key", key)], Problem::LacksKey),
        (&[("ca.crt", b"no PEM")], Problem::Authorities),
        (&[("ca.crt", key)], Problem::Authorities),
        (&[("ca.crt", &long)], Problem::TooLong),
        (&[("tls.crt", certificate), ("tls.key", certificate)], Problem::Identity),
        (&[("tls.crt", b"\xff"), ("tls.key", key)], Problem::Identity),
        (&[("tls.crt", certificate), ("tls.key", other)], Problem::KeyMismatch),
    ] {
        let refused = secret(data).certificates().unwrap_err();
        assert_eq!(refused, problem);
    }
}

#[test]
fn nothing_prints_a_secret() {
    let (certificate, key) = pair();
    let data = [
        ("token", &b"canary-token"[..]),
        ("username", b"canary-user"),
        ("password", b"canary-word"),
        ("ca.crt", certificate.as_bytes()),
        ("tls.crt", certificate.as_bytes()),
        ("tls.key", key.as_bytes()),
    ];
    let material = secret(&data);
    let printed = format!("{material:#?} {:#?} {:#?}", material.authorization(), material.certificates());
    assert!(!printed.contains("canary"), "{printed}");
    assert!(key.lines().all(|line| line.starts_with("-----") || !printed.contains(line)), "{printed}");
    let material = secret(&data[1..]);
    let printed = format!("{material:?} {:?}", material.authorization());
    assert!(!printed.contains("canary") && !printed.contains("Y2FuYXJ5"), "{printed}");
}
