//! An agent that answers whatever the test tells it to, on a port of a simulated machine.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::{net::TcpListener, task::JoinHandle};

type Before = Box<dyn Fn() + Send + Sync>;

/// An agent on every path of one port; it ends with the test.
pub struct Agent {
    pub port: u16,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    /// Called before each answer.
    before: Arc<Mutex<Option<Before>>>,
    task: JoinHandle<()>,
}

impl Agent {
    pub async fn start(address: Ipv4Addr, body: impl Into<String>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (body, asked) = (Arc::new(Mutex::new(body.into())), Arc::new(AtomicUsize::new(0)));
        let before: Arc<Mutex<Option<Before>>> = Arc::default();
        let answers = (Arc::clone(&body), Arc::clone(&asked), Arc::clone(&before));
        let router = axum::Router::new().fallback(async move || {
            answers.1.fetch_add(1, Ordering::Relaxed);
            if let Some(before) = &*answers.2.lock().unwrap() {
                before();
            }
            answers.0.lock().unwrap().clone()
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, body, asked, before, task }
    }

    /// One whose only metric grows by so much a second, from a number that is its own.
    pub async fn counting(address: Ipv4Addr, metric: &'static str, from: f64, a_second: f64) -> Self {
        let agent = Self::start(address, "").await;
        let (body, begin) = (Arc::clone(&agent.body), Instant::now());
        let say = move || {
            let number = from + begin.elapsed().as_secs_f64() * a_second;
            *body.lock().unwrap() = format!("{metric} {number}\n");
        };
        *agent.before.lock().unwrap() = Some(Box::new(say));
        agent
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
