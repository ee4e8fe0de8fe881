//! The main listener on a real control plane: TLS, tokens, rights, Host and Origin, for every path that it serves.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, eventually, get, http, objects, server,
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATHS: [&str; 7] = [
    "/metrics",
    "/api/plugins",
    "/api/servers",
    "/api/namespaces/NAMESPACE/plugins",
    "/api/namespaces/NAMESPACE/servers",
    "/api/namespaces/NAMESPACE/plugins/fleet-metrics",
    "/api/namespaces/NAMESPACE/servers/a-secret-name",
];
/// What must not be told to those who may not read it.
const SECRET: &str = "a-secret-name";

struct Scene {
    operator: Operator,
    namespace: Namespace,
    _fleet: Fleet,
    tokens: BTreeMap<&'static str, String>,
}

/// An operator as the chart starts it, with one server, and three accounts: `reader` may read everything that is served,
/// `stranger` nothing; the third token is none.
async fn scene() -> Scene {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let (fleet, client) = (Fleet::start(1).await, control_plane.client().await);
    let builder = Operator::builder(control_plane).namespace(&namespace).arg("--listen=0.0.0.0:0");
    let builder = builder.arg("--api-auth=kubernetes").arg("--allowed-hosts=fleet.example.com");
    let operator = builder.start().await;
    apply(&client, &namespace, &objects::fleet_metrics(fleet.agent_port())).await;
    apply(&client, &namespace, &server(SECRET, fleet.host(0))).await;
    eventually(PATIENCE, "the server is Ready", async || {
        let server = get::<OllamaServer>(&client, &namespace, SECRET).await;
        objects::has_condition(&server, "Ready", "True", "Online")
    })
    .await;
    let kubectl =
        |args: &[&str]| control_plane.kubectl(&[args, &["-n", namespace.name()]].concat(), None).ok();
    let mut tokens = BTreeMap::from([("wrong", "made.up.token".to_owned())]);
    for name in ["reader", "stranger"] {
        kubectl(&["create", "serviceaccount", name]);
        tokens.insert(name, kubectl(&["create", "token", name]).trim().to_owned());
    }
    let account = format!("--serviceaccount={}:reader", namespace.name());
    kubectl(&["create", "rolebinding", "reader", "--clusterrole=view", &account]);
    // Of the harness's release; what is not namespaced goes with the control plane.
    let role = "--clusterrole=ollama-fleet-operator-metrics-reader";
    let binding = format!("{}-metrics", namespace.name());
    kubectl(&["create", "clusterrolebinding", &binding, role, &account]);
    Scene { operator, namespace, _fleet: fleet, tokens }
}

impl Scene {
    fn port(&self) -> &str {
        self.operator.api_address().rsplit_once(':').unwrap().1
    }

    /// Status and body of a path under its real name, with these headers.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let path = path.replace("NAMESPACE", &self.namespace);
        let url = format!("https://127.0.0.1:{}{path}", self.port());
        let (status, body) = http::get_with_headers(&url, headers).await.unwrap();
        (status.as_u16(), body)
    }
}

/// Every path that tells of the fleet, over real TLS and with real tokens: 200 for who may, in either header; 401 without a
/// token and with a wrong one; for who has no right, 403, or a list of nothing, or an object that is not there. Nobody
/// but who may hears the name of a server.
#[tokio::test]
async fn who_may_read_what() {
    let scene = scene().await;
    for path in PATHS {
        let [reader, stranger, wrong] =
            ["reader", "stranger", "wrong"].map(|name| format!("Bearer {}", scene.tokens[name]));
        // Rights that were just given reach the API server's authorizer a moment later, and a refusal is cached.
        eventually(2 * PATIENCE, path, async || {
            let (status, body) = scene.ask(path, &[("authorization", &reader)]).await;
            let told = path.ends_with("plugins") || path.ends_with("fleet-metrics") || body.contains(SECRET);
            if status == 200 && told { Ok(()) } else { Err(format!("{status}: {body}")) }
        })
        .await;
        let (status, body) = scene.ask(path, &[("x-ollama-fleet-token", &scene.tokens["reader"])]).await;
        assert_eq!(status, 200, "{path} with the other header: {body}");
        for headers in [&[][..], &[("authorization", wrong.as_str())], &[("x-ollama-fleet-token", "x")]] {
            let (status, body) = scene.ask(path, headers).await;
            let problem: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &problem["status"]), (401, &401.into()), "{path} {headers:?}: {body}");
        }
        let (status, body) = scene.ask(path, &[("authorization", &stranger)]).await;
        match path {
            "/api/plugins" | "/api/servers" => assert_eq!((status, body.trim()), (200, "[]"), "{path}"),
            _ => assert_eq!(status, 403, "{path}: {body}"),
        }
        // An object's own path names it; nothing else may.
        assert!(path.ends_with(SECRET) || !body.contains(SECRET), "{path}: {body}");
    }
    let log = scene.operator.log();
    assert!(scene.tokens.values().all(|token| !log.contains(token.as_str())), "the log has a token in it");
}

/// A page of another origin, and a name that somebody else may own, are refused before the token is looked at; a name that
/// `--allowed-hosts` has is served.
#[tokio::test]
async fn hosts_and_origins_of_strangers_are_refused() {
    let scene = scene().await;
    let port = scene.port().to_owned();
    for path in PATHS {
        for (headers, expected) in [
            (vec![("host", "evil.example".to_owned())], 403),
            (vec![("host", "ollama-fleet-operator.evil.example".to_owned())], 403),
            (vec![("origin", "https://evil.example".to_owned())], 403),
            (vec![("origin", "null".to_owned())], 403),
            // These get as far as the question for the token.
            (vec![("host", format!("fleet.example.com:{port}"))], 401),
            (vec![("host", format!("ollama-fleet-operator.fleet.svc:{port}"))], 401),
            (vec![("origin", format!("https://127.0.0.1:{port}"))], 401),
        ] {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (status, body) = scene.ask(path, &headers).await;
            assert_eq!(status, expected, "{path} {headers:?}: {body}");
            assert!(path.ends_with(SECRET) || !body.contains(SECRET), "{body}");
        }
    }
}

/// The oldest TLS that is spoken is 1.2: a hello for 1.1 is answered with the alert `protocol_version`, plain HTTP not at
/// all.
#[tokio::test]
async fn old_tls_and_plain_http_are_refused() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let builder = Operator::builder(control_plane).namespace(&namespace).arg("--listen=0.0.0.0:0");
    let operator = builder.arg("--api-auth=kubernetes").start().await;
    let port: u16 = operator.api_address().rsplit_once(':').unwrap().1.parse().unwrap();
    // The type of the first record that comes back, and what an alert says.
    let answer = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 7];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer));
        read.await.expect("an answer, or the end").map(|_| (answer[0], answer[6])).ok()
    };
    let (handshake, alert, protocol_version) = (22, 21, 70);
    assert_eq!(answer(&client_hello([3, 2])).await, Some((alert, protocol_version)), "TLS 1.1");
    let of_today = answer(&client_hello([3, 3])).await;
    assert_eq!(of_today.map(|(record, _)| record), Some(handshake), "the same hello for TLS 1.2");
    let plain = answer(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(plain.is_none_or(|(record, _)| record == alert), "{plain:?}");
}

/// A hello of that version, with one suite, group and signature that the self-signed certificate goes with.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ecdsa_secp256r1_sha256
        0, 10, 0, 4, 0, 2, 0, 29, // groups: x25519
        0, 11, 0, 2, 1, 0, // points: uncompressed
    ];
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    // 32 random bytes, no session, ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    let suite: &[u8] = &[0, 0, 2, 0xc0, 0x2b, 1, 0];
    let hello = [&version[..], &[7; 32], suite, &[0, length(extensions)], extensions].concat();
    let handshake = [&[1, 0, 0, length(&hello)][..], &hello].concat();
    [&[22, 3, 1, 0, length(&handshake)][..], &handshake].concat()
}
