//! JSON arrays that are written while they are read: of a long one, only a piece is in memory as text.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

/// A piece is handed over when it has this many bytes; the row that it ends with may make it longer.
const PIECE: usize = 64 * 1024;

/// The array of `rows`, each as `write` puts it. The permit is kept until the last piece is taken, or the reader is
/// gone.
pub fn respond<T: Send + 'static>(
    rows: Vec<T>,
    write: impl Fn(&T, &mut Vec<u8>) -> serde_json::Result<()> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> Response {
    let mut rows = rows.into_iter().peekable();
    let mut next = move || -> serde_json::Result<Bytes> {
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        while piece.len() < PIECE {
            let Some(row) = rows.next() else { break };
            write(&row, &mut piece)?;
            piece.extend_from_slice(if rows.peek().is_some() { b",\n" } else { b"]\n" });
        }
        Ok(piece.into())
    };
    let pieces = stream::unfold((Some(permit), true), move |(permit, first)| {
        let piece = permit.is_some().then(&mut next);
        std::future::ready(match piece {
            // A row that cannot be written ends the connection: a shorter array would pass for all of it.
            Some(Err(error)) => Some((Err(error), (None, false))),
            Some(Ok(piece)) if piece.is_empty() && !first => None,
            Some(Ok(piece)) => {
                let start = if piece.is_empty() { "[]\n" } else { "[" };
                let piece = if first { [start.as_bytes(), &piece].concat().into() } else { piece };
                Some((Ok(piece), (permit, false)))
            }
            None => None,
        })
    });
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([json], Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn text(rows: usize, wide: usize) -> (String, usize) {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let rows: Vec<String> = (0..rows).map(|number| format!("{number:wide$}")).collect();
        let body = respond(rows, |row, out| serde_json::to_writer(out, row), permit).into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (String::from_utf8(bytes.to_vec()).unwrap(), bytes.len())
    }

    #[tokio::test]
    async fn any_number_of_rows_is_an_array() {
        assert_eq!(text(0, 1).await.0, "[]\n");
        assert_eq!(text(1, 1).await.0, "[\"0\"]\n");
        for rows in [2, 3, 1000] {
            let (text, bytes) = text(rows, 1000).await;
            let array: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(array.as_array().unwrap().len(), rows);
            assert_eq!(bytes, rows * (1000 + 2 + 2) + 1, "{rows}");
        }
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_written_breaks_the_body() {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let write = |row: &u8, out: &mut Vec<u8>| {
            let row = if *row == 1 { Err(serde::ser::Error::custom("no")) } else { Ok(*row) };
            serde_json::to_writer(out, &row?)
        };
        let body = respond(vec![0, 1, 2], write, permit).into_body();
        assert!(axum::body::to_bytes(body, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn the_permit_is_kept_until_the_end_or_until_the_reader_leaves() {
        let lists = Arc::new(Semaphore::new(1));
        let respond = || {
            let permit = Arc::clone(&lists).try_acquire_owned().unwrap();
            respond(vec![1], |row, out| serde_json::to_writer(out, row), permit)
        };
        let response = respond();
        assert_eq!(lists.available_permits(), 0);
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(lists.available_permits(), 1);
        drop(respond());
        assert_eq!(lists.available_permits(), 1);
    }
}
