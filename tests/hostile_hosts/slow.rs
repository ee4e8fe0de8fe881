//! H3 to H5, H16: hosts that answer slowly, stop in the middle, or break the connection.

use super::{OK, Row, Stage, VERSION};
use crate::support::raw_host::{Script, says_without_end, script};
use std::time::Duration;

/// One byte in this time: a healthy answer would take a minute.
const DRIP: Duration = Duration::from_millis(200);

/// Answers version as it should be, and keeps the connection for what comes then.
async fn answer_version(connection: &mut crate::support::raw_host::Connection) -> std::io::Result<bool> {
    let Some(head) = connection.request().await? else { return Ok(false) };
    let body = if head.contains("/api/version") { VERSION } else { r#"{"models":[]}"# };
    connection.send(format!("{OK}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    Ok(true)
}

fn silent_after(bytes: &'static str) -> Script {
    script(move |mut connection| async move {
        connection.request().await?;
        connection.send(bytes.as_bytes()).await?;
        connection.ignore().await
    })
}

fn reset_after(bytes: &'static str) -> Script {
    script(move |mut connection| async move {
        connection.request().await?;
        connection.send(bytes.as_bytes()).await?;
        connection.reset()
    })
}

/// However slowly a host answers, and wherever it stops, one deadline covers all of it, and a broken connection is told
/// as what it is.
#[tokio::test]
async fn slow_and_broken_answers_end_by_the_deadline() {
    let rows: Vec<Row> = vec![
        (
            "accepts and says nothing",
            script(|mut connection| async move { connection.ignore().await }),
            "Timeout",
        ),
        (
            "never reads",
            script(|connection| async move {
                // Held, not closed, for longer than the test takes.
                tokio::time::sleep(Duration::from_mins(5)).await;
                drop(connection);
                Ok(())
            }),
            "Timeout",
        ),
        ("a status line byte by byte", says_without_end("", b"H", Some(DRIP)), "Timeout"),
        ("one header byte by byte", says_without_end(OK, b"A", Some(DRIP)), "Timeout"),
        ("headers line by line", says_without_end(OK, b"A: b\r\n", Some(DRIP)), "Timeout"),
        ("a body byte by byte", says_without_end(format!("{OK}\r\n"), b" ", Some(DRIP)), "Timeout"),
        (
            "chunks of one byte",
            says_without_end(format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), b"1\r\n \r\n", Some(DRIP)),
            "Timeout",
        ),
        (
            "chunks without end",
            says_without_end(format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), b"1\r\n \r\n", None),
            "ResponseTooLarge|Timeout",
        ),
        (
            "a chunk's extension without end",
            says_without_end(format!("{OK}Transfer-Encoding: chunked\r\n\r\n1"), b";a=b", None),
            "InvalidResponse|Timeout",
        ),
        (
            "trailers without end",
            says_without_end(format!("{OK}Transfer-Encoding: chunked\r\n\r\n0\r\n"), b"A: b\r\n", None),
            "InvalidResponse|Timeout",
        ),
        ("silent after the status line", silent_after(OK), "Timeout"),
        ("silent in the body", silent_after("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"), "Timeout"),
        ("reset at once", script(|connection| async move { connection.reset() }), "ConnectionRefused"),
        ("reset in the headers", reset_after("HTTP/1.1 200 OK\r\nContent-"), "ConnectionRefused"),
        (
            "reset in the body",
            reset_after("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"vers"),
            "InvalidResponse",
        ),
    ];
    Stage::play(rows).await;
}

/// A kept connection that the host has given up, in the moment before it is used again, is no failure: the request is
/// made once more on a new one. Nor is a host that answers one thing and then hangs offline.
#[tokio::test]
async fn a_connection_that_ends_before_it_is_used_again_is_no_failure() {
    let rows: Vec<Row> = vec![
        (
            "ends after each answer, unannounced",
            script(|mut connection| async move {
                answer_version(&mut connection).await?;
                connection.finish().await
            }),
            "Online",
        ),
        (
            "resets after each answer",
            script(|mut connection| async move {
                answer_version(&mut connection).await?;
                connection.stream.readable().await?;
                connection.reset()
            }),
            "Online",
        ),
        (
            "ends when the second request is there",
            script(|mut connection| async move {
                answer_version(&mut connection).await?;
                connection.request().await?;
                Ok(())
            }),
            "Online",
        ),
        (
            "hangs at the second request",
            script(|mut connection| async move {
                answer_version(&mut connection).await?;
                connection.ignore().await
            }),
            "Online",
        ),
    ];
    let mut stage = Stage::set().await;
    for row in rows {
        stage.add(row, serde_json::json!({})).await;
    }
    stage.until_judged().await;
    for (name, what, ..) in stage.hosts.iter().take(3) {
        let status = stage.scene.status(name).await;
        assert_eq!(status.loaded_count, Some(0), "{what}: the second answer is missing");
    }
    stage.strike().await;
}
