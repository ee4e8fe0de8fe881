//! An agent that answers whatever the test tells it to, on a port of a simulated machine.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An agent on every path of one port; it ends with the test.
pub struct Agent {
    pub port: u16,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Agent {
    pub async fn start(address: Ipv4Addr, body: impl Into<String>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (body, asked) = (Arc::new(Mutex::new(body.into())), Arc::new(AtomicUsize::new(0)));
        let answers = (Arc::clone(&body), Arc::clone(&asked));
        let router = axum::Router::new().fallback(async move || {
            answers.1.fetch_add(1, Ordering::Relaxed);
            answers.0.lock().unwrap().clone()
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, body, asked, task }
    }

    /// What it answers from now on.
    pub fn say(&self, body: impl Into<String>) {
        *self.body.lock().unwrap() = body.into();
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
