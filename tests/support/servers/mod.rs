//! Fakes of the servers that people run: what each program answers in each state of its life, and what asking costs.
//!
//! One [`Program`] is one table. A row is a path, the states in which it answers so, the answer, and its cost: an
//! inference, a load, a wake-up, an idle timer that begins anew. [`FakeServer`] serves a table and counts the costs.
//! The tables name the version, and whether the program was run or its source was read. They know nothing of the
//! operator but the settings that `docs/backends.md` documents for the program, and what its status is to say then.

mod desktops;
mod engines;
mod fake;
mod gateways;
mod llama;

pub use desktops::{LM_STUDIO, LOCALAI, OLLAMA};
pub use engines::{SGLANG, VLLM};
pub use fake::{Counts, FakeServer};
pub use gateways::{LITELLM, OPEN_WEBUI};
pub use llama::{LLAMA_ROUTER, LLAMA_SERVER, LLAMA_SWAP};

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nothing listens: it has not started, or has crashed.
    Down,
    /// It listens, and loads its model.
    Loading,
    /// Its model is in memory and answers.
    Serving,
    /// It runs without a model in memory.
    Unloaded,
    /// The model has been put to sleep and wakes when it is asked for something.
    Sleeping,
    /// It listens, but what does the work is dead.
    Broken,
}

/// What one request makes a real server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A model computes, at the user's cost or at a provider's.
    Inference,
    /// A model is read into memory.
    Load,
    /// A sleeping model is woken.
    Wake,
    /// The idle time after which the model would be put away begins anew.
    KeepAwake,
}

/// How the facts of a table are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The program was run, and its answers were recorded.
    Run,
    /// Only its source, or its documentation, was read.
    Read,
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    /// `{now}` becomes the time in seconds since 1970: several programs write it into each answer. `{uses}` becomes the
    /// number of users' requests so far.
    pub body: &'static str,
}

/// What a path is answered in some states. The first row that fits counts.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// With its query, if that matters.
    pub path: &'static str,
    pub at: &'static [Life],
    pub answer: Answer,
    pub costs: &'static [Cost],
}

/// What the status says of models in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Known(&'static [&'static str]),
    Unknown,
}

/// A state, and what the object's status must come to be in it.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub life: Life,
    /// The reason of Ready; it is True for `Online` only.
    pub reason: &'static str,
    pub memory: Memory,
}

/// One way to register the program that is documented, and its life as it is seen that way.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub backend_type: &'static str,
    pub health_path: Option<&'static str>,
    /// How many models are listed while it is online, if the setting tells.
    pub models: Option<i32>,
    pub version: Option<&'static str>,
    pub stages: &'static [Stage],
}

#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// A label for objects and messages.
    pub name: &'static str,
    /// As the table in `docs/backends.md` calls it.
    pub title: &'static str,
    /// As the section about it there has it.
    pub version: &'static str,
    pub known: Known,
    pub rows: &'static [Row],
    pub otherwise: Answer,
    /// The settings of the table in `docs/backends.md`, all of them.
    pub settings: &'static [Setting],
    /// Settings that the page allows elsewhere, or that people have all the same.
    pub others: &'static [Setting],
}

impl Program {
    pub fn all_settings(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        self.settings.iter().chain(self.others)
    }
}

impl Setting {
    /// The path that every poll asks, by which polls are counted.
    pub fn polled(&self) -> &'static str {
        match (self.backend_type, self.health_path) {
            ("Ollama", _) => "/api/version",
            ("VLLM", _) => "/v1/models",
            (_, path) => path.unwrap_or("/health"),
        }
    }
}

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";

pub const ONLINE: &str = "Online";
pub const REFUSED: &str = "ConnectionRefused";
pub const BUSY: &str = "ServerBusy";

/// All states in which something listens.
pub const UP: &[Life] = &[Life::Loading, Life::Serving, Life::Unloaded, Life::Sleeping, Life::Broken];

pub const fn answer(status: u16, content_type: &'static str, body: &'static str) -> Answer {
    Answer { status, content_type, body }
}

/// An answer in JSON that costs nothing.
pub const fn json(path: &'static str, at: &'static [Life], status: u16, body: &'static str) -> Row {
    Row { path, at, answer: answer(status, JSON, body), costs: &[] }
}

/// An answer of another kind that costs nothing.
pub const fn other(path: &'static str, at: &'static [Life], answer: Answer) -> Row {
    Row { path, at, answer, costs: &[] }
}

impl Row {
    pub const fn costs(mut self, costs: &'static [Cost]) -> Self {
        self.costs = costs;
        self
    }
}

pub const fn stage(life: Life, reason: &'static str, memory: Memory) -> Stage {
    Stage { life, reason, memory }
}

/// Every program of the table in `docs/backends.md`.
pub fn all() -> Vec<Program> {
    [llama::ALL, engines::ALL, gateways::ALL, desktops::ALL].concat()
}
