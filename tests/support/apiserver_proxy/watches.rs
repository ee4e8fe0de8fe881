//! A watch on its way through: event by event, with what the test does to them.

use super::Shared;
use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use std::{future::pending, io, sync::Arc};
use tokio::sync::mpsc;

/// The resource and an event of its watch; the events that are sent in its place.
pub(super) type Editor = Arc<dyn Fn(&str, Value) -> Vec<Value> + Send + Sync>;

/// How a watch ends before its time.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// In order, as at its time-out.
    Ended,
    /// In the middle of an event, and of the connection.
    MidEvent,
}

#[derive(Clone)]
pub(super) enum Order {
    Send(String),
    Cut(Cut),
    Mute,
}

pub(super) struct OpenWatch {
    pub resource: String,
    pub orders: mpsc::UnboundedSender<Order>,
}

/// The body of a watch as the client gets it.
pub(super) fn pass(shared: Arc<Shared>, resource: String, upstream: Body) -> Body {
    let (orders, receiver) = mpsc::unbounded_channel();
    let mut state = shared.lock();
    state.watches.retain(|watch| !watch.orders.is_closed());
    state.watches.push(OpenWatch { resource: resource.clone(), orders });
    drop(state);
    let (sender, body) = mpsc::channel::<io::Result<Bytes>>(16);
    tokio::spawn(async move {
        let run = Passing { shared, resource, sender: sender.clone(), receiver };
        tokio::select! {
            () = run.run(upstream.into_data_stream()) => {}
            () = sender.closed() => {}
        }
    });
    let stream = futures::stream::unfold(body, async |mut body| {
        let item = body.recv().await?;
        Some((item, body))
    });
    Body::from_stream(stream)
}

struct Passing {
    shared: Arc<Shared>,
    resource: String,
    sender: mpsc::Sender<io::Result<Bytes>>,
    receiver: mpsc::UnboundedReceiver<Order>,
}

impl Passing {
    async fn run(mut self, mut upstream: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
        let mut buffer = Vec::new();
        loop {
            tokio::select! {
                chunk = upstream.next() => {
                    let Some(Ok(chunk)) = chunk else { return };
                    buffer.extend_from_slice(&chunk);
                    while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = buffer.drain(..=end).collect();
                        for line in self.edited(line) {
                            self.send(line).await;
                        }
                    }
                }
                Some(order) = self.receiver.recv() => match order {
                    Order::Send(line) => self.send(line.into_bytes()).await,
                    Order::Cut(Cut::Ended) => return,
                    Order::Cut(Cut::MidEvent) => {
                        self.send(br#"{"type":"MODIFIED","object":{"apiVersion":"#.to_vec()).await;
                        let _ = self.sender.send(Err(io::Error::other("cut"))).await;
                        return;
                    }
                    Order::Mute => pending().await,
                },
            }
        }
    }

    fn edited(&self, line: Vec<u8>) -> Vec<Vec<u8>> {
        let editor = self.shared.lock().editor.clone();
        let Some(editor) = editor else { return vec![line] };
        let Ok(event) = serde_json::from_slice(&line) else { return vec![line] };
        editor(&self.resource, event).into_iter().map(|event| format!("{event}\n").into_bytes()).collect()
    }

    async fn send(&self, bytes: Vec<u8>) {
        let _ = self.sender.send(Ok(bytes.into())).await;
    }
}
