//! What becomes of connections that no request waits for any more, as the host sees it.

use super::*;
use crate::probe::{NameServers, address::parse_cidr};
use rcgen::generate_simple_self_signed;
use rstest::rstest;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
};

/// Longer than any of these tests waits for something else.
const LONG: Duration = Duration::from_secs(30);
const NEVER_ENDING: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n";

fn clients() -> HttpClients {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed = vec![parse_cidr("127.0.0.0/8").unwrap()];
    let policy = SharedPolicy::new(AddressPolicy { allowed, ..AddressPolicy::default() });
    let resolver = CheckedResolver::new(Arc::clone(&policy), NameServers::System);
    HttpClients::new(resolver, policy, Limits::default()).unwrap()
}

fn route(clients: &HttpClients, endpoint: &Endpoint, tls: &TlsSettings) -> Route {
    let address = ([127, 0, 0, 1], endpoint.port).into();
    clients.route(tls, Destination::new(endpoint.host.clone(), address, LONG))
}

fn request<'a>(
    route: &'a Route,
    endpoint: &'a Endpoint,
    tls: &'a TlsSettings,
    namespace: &'a Namespace,
) -> Request<'a> {
    Request {
        route,
        endpoint,
        path: "/",
        namespace,
        host_header: None,
        accept: ACCEPT_ANY,
        lane: Lane::Healthy,
        authorization: None,
        tls,
        body_max: 3,
        begin_is_enough: false,
        deadline: Instant::now() + LONG,
        last: false,
    }
}

/// Asks a host for two paths, of which it answers the first in full and the second so. How the second ended, and what
/// the host then reads of its connection.
async fn asked_twice(second: &'static [u8]) -> (Result<Answer, Failure>, Result<usize, ErrorKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", second] {
            read_request(&mut stream);
            stream.write_all(answer).unwrap();
        }
        stream
    });
    let clients = clients();
    let endpoint = Endpoint::parse(&format!("127.0.0.1:{port}")).unwrap();
    let (tls, namespace) = (TlsSettings::default(), Namespace::from("n"));
    let route = route(&clients, &endpoint, &tls);
    let request = request(&route, &endpoint, &tls, &namespace);
    assert_eq!(clients.get(request).await.unwrap().body, b"ok");
    let soon = Request { deadline: Instant::now() + Duration::from_millis(300), ..request };
    let answer = clients.get(soon).await;
    // The runtime has one thread, which is here: nothing of the client's goes on meanwhile.
    let mut stream = host.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    (answer, stream.read(&mut [0]).map_err(|error| error.kind()))
}

fn read_request(stream: &mut impl Read) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// The next request would otherwise reach the host beside the one that was given up.
#[rstest]
#[case::silent(b"", Failure::Timeout)]
#[case::a_head_without_an_end(b"HTTP/1.1 200 OK\r\nserver: ", Failure::Timeout)]
#[case::too_large(NEVER_ENDING, Failure::ResponseTooLarge)]
#[case::compressed(
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\n",
    Failure::InvalidResponse
)]
#[tokio::test]
async fn a_request_that_is_given_up_leaves_no_connection(
    #[case] answer: &'static [u8],
    #[case] expected: Failure,
) {
    let (answer, connection) = asked_twice(answer).await;
    assert_eq!(answer.unwrap_err(), expected);
    assert!(matches!(connection, Ok(0) | Err(ErrorKind::ConnectionReset)), "{connection:?}");
}

/// What was read to the end is used again, and not waited for.
#[tokio::test]
async fn an_answer_leaves_its_connection_open() {
    let (answer, connection) = asked_twice(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(answer.unwrap().status, 404);
    assert_eq!(connection, Err(ErrorKind::WouldBlock));
}

/// The client leaves a connection that it has begun to a task of its own once the request is answered on another. The
/// host could keep it in its handshake for ever.
#[tokio::test]
async fn a_handshake_whose_request_was_answered_elsewhere_is_given_up() {
    let clients = clients();
    let made = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut secure = rustls::StreamOwned::new(tls, stream);
        read_request(&mut secure);
        let (mut silent, _) = listener.accept().unwrap();
        silent.set_read_timeout(Some(LONG / 3)).unwrap();
        assert!(silent.read(&mut [0; 4096]).unwrap() > 0, "a handshake begins");
        secure.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        read_request(&mut secure);
        secure.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        silent.read(&mut [0; 4096]).map_err(|error| error.kind())
    });
    let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).unwrap();
    let tls = TlsSettings { skip_verify: true, ..TlsSettings::default() };
    let (route, namespace) = (route(&clients, &endpoint, &tls), Namespace::from("n"));
    let request = request(&route, &endpoint, &tls, &namespace);
    let (first, second) = tokio::join!(clients.get(request), clients.get(request));
    assert_eq!((first.unwrap().body, second.unwrap().body), (b"ok".to_vec(), b"ok".to_vec()));
    let closed = tokio::task::spawn_blocking(|| host.join().unwrap()).await.unwrap();
    assert_eq!(closed, Ok(0), "the handshake goes on");
}
