//! What becomes of the connection of a request that is given up, as the host sees it.

use super::*;
use crate::probe::{NameServers, address::parse_cidr};
use rstest::rstest;
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

const NEVER_ENDING: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n";

/// Asks a host for two paths, of which it answers the first in full and the second so. How the second ended, and what
/// the host then reads of its connection.
async fn asked_twice(second: &'static [u8]) -> (Result<Answer, Failure>, Result<usize, ErrorKind>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
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
    let allowed = vec![parse_cidr("127.0.0.0/8").unwrap()];
    let policy = SharedPolicy::new(AddressPolicy { allowed, ..AddressPolicy::default() });
    let resolver = CheckedResolver::new(Arc::clone(&policy), NameServers::System);
    let clients = HttpClients::new(resolver, policy, Limits::default()).unwrap();
    let request = Request {
        endpoint: &Endpoint::parse(&format!("127.0.0.1:{port}")).unwrap(),
        path: "/",
        namespace: &Namespace::from("n"),
        host_header: None,
        lane: Lane::Healthy,
        authorization: None,
        tls: &TlsSettings::default(),
        body_max: 3,
        deadline: Instant::now() + Duration::from_secs(30),
        last: false,
    };
    assert_eq!(clients.get(request).await.unwrap().body, b"ok");
    let soon = Request { deadline: Instant::now() + Duration::from_millis(300), ..request };
    let answer = clients.get(soon).await;
    // The runtime has one thread, which is here: nothing of the client's goes on meanwhile.
    let mut stream = host.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    (answer, stream.read(&mut [0]).map_err(|error| error.kind()))
}

fn read_request(stream: &mut TcpStream) {
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
