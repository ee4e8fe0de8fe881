//! Many requests at once: what each may use up, and that the others are served all the same.

use super::{
    super::{HEALTH_CONNECTIONS, HEALTH_HEADER_DEADLINE, MAIN_CONNECTIONS, cache::ALLOW_FOR},
    *,
};
use tokio::net::TcpSocket;

#[tokio::test]
async fn a_flood_of_tokens_does_not_reach_the_apiserver() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    running.scrape("reader").await;
    let client = client();
    let mut refused = 0;
    for number in 0..200 {
        let request = client.get(running.url("/metrics")).bearer_auth(format!("invented-{number}"));
        if request.send().await.unwrap().status() == StatusCode::SERVICE_UNAVAILABLE {
            refused += 1;
        }
    }
    assert!(refused > 50, "{refused}");
    assert_eq!(running.scrape("reader").await.status(), StatusCode::OK);
}

/// Lets verdicts end, and no real time pass.
async fn verdicts_end() {
    tokio::time::pause();
    tokio::time::advance(ALLOW_FOR).await;
    tokio::time::resume();
}

/// The verdict about a good token ends again and again while its address, and with it everybody, has used up what there is
/// for tokens that are not known: it is asked for again at once, and never accepted without.
#[tokio::test]
async fn a_flood_of_tokens_keeps_out_nobody_who_was_let_in_before() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    // A connection that is kept ends with the time that is jumped over.
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let send = async |token: &str| {
        client.get(running.url("/metrics")).bearer_auth(token).send().await.unwrap().status()
    };
    let asked = || {
        let asked = running.asked.lock().unwrap();
        asked.iter().filter(|(_, body)| body["spec"]["token"] == "reader").count()
    };
    assert_eq!(send("reader").await, StatusCode::OK);
    for round in 0..4 {
        let mut number = 0;
        // Three in a row, so that what comes back meanwhile is gone too.
        let mut refused = 0;
        while refused < 3 {
            let status = send(&format!("invented-{round}-{number}")).await;
            refused = if status == StatusCode::SERVICE_UNAVAILABLE { refused + 1 } else { 0 };
            number += 1;
            assert!(number < 10_000);
        }
        let before = asked();
        verdicts_end().await;
        assert_eq!(send("reader").await, StatusCode::OK, "round {round}");
        assert!(asked() > before, "it was asked for");
    }
}

/// That a token was good does not make it good for longer.
#[tokio::test]
async fn a_token_that_was_taken_back_is_refused_after_a_minute() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    assert_eq!(running.scrape("leaver").await.status(), StatusCode::OK);
    assert_eq!(running.scrape("leaver").await.status(), StatusCode::OK);
    verdicts_end().await;
    assert_eq!(running.scrape("leaver").await.status(), StatusCode::UNAUTHORIZED);
}

/// A connection from another of this machine's own addresses.
async fn connect_from(number: usize, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = [127, 0, 1, u8::try_from(number).unwrap() + 1];
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// More connections than there are for everybody, all from one address and silent: who comes from another one is answered at
/// once, on both listeners.
#[tokio::test]
async fn one_address_cannot_hold_all_connections() {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let mut silent = Vec::new();
    for _ in 0..MAIN_CONNECTIONS + 10 {
        for at in [running.at.main, running.at.health] {
            silent.push(connect_from(1, at).await);
        }
    }
    for (at, path) in [(running.at.main, "/metrics"), (running.at.health, "/livez")] {
        let mut stream = connect_from(2, at).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        // Before any of the silent ones is closed for its silence.
        let answer = tokio::time::timeout(HEALTH_HEADER_DEADLINE / 2, stream.read_exact(&mut start)).await;
        answer.unwrap_or_else(|_| panic!("{path}: no answer")).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn silent_connections_are_closed_and_then_others_get_in() {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let mut silent = Vec::new();
    for number in 0..HEALTH_CONNECTIONS {
        // Each address may have some of them only.
        silent.push(connect_from(number / 4, running.at.health).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let probe = tokio::spawn(client().get(running.health("/livez")).send());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!probe.is_finished());
    let answer = tokio::time::timeout(HEALTH_HEADER_DEADLINE, probe).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}
