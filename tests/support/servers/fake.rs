//! A table of answers behind a socket of its own, and the book of what asking has cost.

use super::{Answer, Cost, Life, Program, Row};
use crate::support::raw_host::free_address;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Response, header},
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What requests have cost so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub inferences: u64,
    pub loads: u64,
    pub wakes: u64,
    pub kept_awake: u64,
}

/// One server that is asked by the operator only: whatever is counted is the operator's doing.
pub struct FakeServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

struct State {
    program: Program,
    life: Life,
    /// After so long without a request that counts as use, a serving model is put to sleep.
    sleeps_after: Option<Duration>,
    /// What it is then.
    rests: Life,
    used: Instant,
    /// Requests of users so far.
    uses: u64,
    counts: Counts,
    /// By path and query.
    asked: BTreeMap<String, u64>,
}

impl FakeServer {
    /// A server that is not there yet, at an address of its own.
    pub async fn new(program: &Program) -> Self {
        let address = SocketAddr::from((free_address(), 0));
        // A port that is free there now; nobody else uses the address.
        let address = TcpListener::bind(address).await.unwrap().local_addr().unwrap();
        let state = State {
            program: *program,
            life: Life::Down,
            sleeps_after: None,
            rests: Life::Sleeping,
            used: Instant::now(),
            uses: 0,
            counts: Counts::default(),
            asked: BTreeMap::new(),
        };
        Self { address, state: Arc::new(Mutex::new(state)), task: None }
    }

    /// Moves to another state of its life.
    pub async fn become_(&mut self, life: Life) {
        {
            let mut state = self.lock();
            (state.life, state.used) = (life, Instant::now());
        }
        match (life, self.task.is_some()) {
            (Life::Down, _) => self.stop().await,
            (_, false) => self.listen().await,
            _ => {}
        }
    }

    /// From now on a serving model is put to sleep, or away, after so long without use.
    pub fn rests_after(&self, idle: Duration, rests: Life) {
        let mut state = self.lock();
        (state.sleeps_after, state.rests, state.used) = (Some(idle), rests, Instant::now());
    }

    /// What a request of a user does, whom it is for: it loads or wakes the model. It is not counted.
    pub fn used_by_somebody(&self) {
        let mut state = self.lock();
        (state.life, state.used) = (Life::Serving, Instant::now());
        state.uses += 1;
    }

    pub fn life(&self) -> Life {
        self.lock().now()
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// How often a path was asked, with whatever query.
    pub fn asked(&self, path: &str) -> u64 {
        let state = self.lock();
        let of = |asked: &&String| asked.split('?').next() == Some(path);
        state.asked.iter().filter(|(asked, _)| of(asked)).map(|(_, count)| count).sum()
    }

    /// Everything that was asked, and how often; for messages.
    pub fn all_asked(&self) -> BTreeMap<String, u64> {
        self.lock().asked.clone()
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let state = Arc::clone(&self.state);
        let router = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = state.take(&path);
            respond(answer, state.uses)
        });
        self.task = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl State {
    /// The state at this moment: a model falls asleep by itself.
    fn now(&mut self) -> Life {
        let idle = self.sleeps_after.is_some_and(|idle| self.used.elapsed() >= idle);
        if self.life == Life::Serving && idle {
            self.life = self.rests;
        }
        self.life
    }

    /// The answer to one request, which may change the state.
    fn take(&mut self, asked: &str) -> Answer {
        let life = self.now();
        *self.asked.entry(asked.to_owned()).or_default() += 1;
        let path = asked.split('?').next().unwrap_or_default();
        let fits = |row: &&Row| (row.path == asked || row.path == path) && row.at.contains(&life);
        let Some(row) = self.program.rows.iter().find(fits) else {
            return self.program.otherwise;
        };
        for cost in row.costs {
            match cost {
                Cost::Inference => self.counts.inferences += 1,
                Cost::Load => self.counts.loads += 1,
                Cost::Wake => self.counts.wakes += 1,
                Cost::KeepAwake => self.counts.kept_awake += 1,
            }
            match cost {
                Cost::Load | Cost::Wake => (self.life, self.used) = (Life::Serving, Instant::now()),
                Cost::KeepAwake => self.used = Instant::now(),
                Cost::Inference => {}
            }
        }
        row.answer
    }
}

fn respond(answer: Answer, uses: u64) -> Response<Body> {
    let now = Timestamp::now().as_second().to_string();
    let body = answer.body.replace("{now}", &now).replace("{uses}", &uses.to_string());
    let builder = Response::builder().status(answer.status).header(header::CONTENT_TYPE, answer.content_type);
    builder.body(Body::from(body)).unwrap()
}
