//! The whole life of every server that `docs/backends.md` has, at every setting that it documents, against fakes that
//! count: no poll runs a model, loads one, wakes one or keeps one awake, and the status says what is so, or nothing.

use crate::support::{
    Board, PATIENCE, Scene, binaries, condition, eventually, full, holds_for, metric_value,
    objects::{has_condition, server_with},
    servers::{
        self, Counts, FakeServer, Known, LITELLM, LLAMA_SWAP, LM_STUDIO, Life, Memory, ONLINE, OPEN_WEBUI,
        Program, Setting, Stage,
    },
    status_of,
};
use futures::{FutureExt as _, future::join_all};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;
use std::{collections::BTreeSet, fs, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// Nothing was computed, loaded, woken or kept awake for a poll.
const FREE: Counts = Counts { inferences: 0, loads: 0, wakes: 0, kept_awake: 0 };

/// One program at one setting, registered and not yet there.
struct Subject {
    scene: Arc<Scene>,
    board: Arc<Board>,
    program: Program,
    setting: Setting,
    name: String,
    fake: FakeServer,
}

impl Subject {
    async fn register(
        scene: &Arc<Scene>,
        board: &Arc<Board>,
        program: Program,
        (number, setting): (usize, &Setting),
    ) -> Self {
        let name = format!("{}-{number}", program.name);
        let fake = FakeServer::new(&program).await;
        let mut spec = json!({"backendType": setting.backend_type});
        if let Some(path) = setting.health_path {
            spec["healthPath"] = path.into();
        }
        scene.apply(&server_with(&name, fake.address.to_string(), spec)).await;
        let (scene, board) = (Arc::clone(scene), Arc::clone(board));
        Self { scene, board, program, setting: *setting, name, fake }
    }

    /// Goes on to a state of its life, and waits until the status is as it must be then.
    async fn go(&mut self, stage: &Stage) {
        self.fake.become_(stage.life).await;
        self.polls(2).await;
        let what = format!("{} {} is {:?}", self.name, self.program.version, stage.life);
        eventually(PATIENCE, &what, async || {
            let server = self.board.get(&self.name)?;
            as_it_must_be(&server, &self.setting, stage)
                .map_err(|error| format!("{error}; asked {:?}", self.fake.all_asked()))
        })
        .await;
    }

    /// It stays so at the next polls, and nothing was at the user's cost.
    async fn stay(&self, stage: &Stage, polls: u64) {
        self.polls(polls).await;
        let asked = self.fake.all_asked();
        let what = format!("{} {} {:?} {asked:?}", self.name, self.program.version, stage.life);
        // On a busy machine a poll may be late, which is a doubt and no verdict.
        eventually(PATIENCE, &what, async || {
            let server = self.board.get(&self.name)?;
            let right = as_it_must_be(&server, &self.setting, stage);
            let doubt = has_condition(&*server, "Ready", "True", "ProbeFailing").is_ok();
            assert!(right.is_ok() || doubt, "{what}: {right:?}");
            right
        })
        .await;
        assert_eq!(self.fake.counts(), FREE, "{what}");
        assert_eq!(self.fake.life(), stage.life, "{what}: asking changed it");
    }

    /// Waits until that many polls have begun after this call, and are over.
    async fn polls(&self, polls: u64) {
        if self.fake.life() == Life::Down {
            return;
        }
        let path = self.setting.polled();
        let before = self.fake.asked(path);
        let limit = PATIENCE + Duration::from_secs(polls);
        eventually(limit, &format!("{} is asked for {path}", self.name), async || {
            let asked = self.fake.asked(path);
            // The last one that was counted may be under way.
            if asked > before + polls { Ok(()) } else { Err(format!("{:?}", self.fake.all_asked())) }
        })
        .await;
    }
}

/// What the status must say of a server in this state that is registered in this way.
fn as_it_must_be(server: &OllamaServer, setting: &Setting, stage: &Stage) -> Result<(), String> {
    let online = stage.reason == ONLINE;
    has_condition(server, "Ready", if online { "True" } else { "False" }, stage.reason)?;
    let status = status_of(server);
    if online && status.model_count != setting.models {
        return Err(format!("{:?} models, not {:?}", status.model_count, setting.models));
    }
    if online && setting.version.is_some() && status.version.as_deref() != setting.version {
        return Err(format!("version {:?}, not {:?}", status.version, setting.version));
    }
    let loaded = status.loaded_models.as_ref();
    match stage.memory {
        Memory::Unknown => {
            let said = loaded.is_some() || status.loaded_count.is_some() || status.vram_used.is_some();
            let what = (loaded, status.loaded_count, &status.vram_used);
            if said { Err(format!("said to be in memory, which nobody knows: {what:?}")) } else { Ok(()) }
        }
        Memory::Known(names) => {
            let said: Vec<&str> = loaded.into_iter().flatten().map(|model| model.name.as_str()).collect();
            let count = i32::try_from(names.len()).ok();
            let right = said == names && status.loaded_count == count;
            if right {
                Ok(())
            } else {
                Err(format!("{said:?} ({:?}) in memory, not {names:?}", status.loaded_count))
            }
        }
    }
}

/// Everything of the table at once.
async fn everything(scene: &Arc<Scene>, board: &Arc<Board>) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for program in servers::all() {
        for setting in program.all_settings().enumerate() {
            subjects.push(Subject::register(scene, board, program, setting).await);
        }
    }
    subjects
}

async fn stage_() -> (Arc<Scene>, Arc<Board>) {
    let scene = Arc::new(Scene::new(1).await);
    let board = Arc::new(Board::start(&scene.client, &scene.namespace));
    (scene, board)
}

/// Each of them lives by itself, all at once; all that fail are named.
async fn each(subjects: Vec<Subject>, live: impl AsyncFn(Subject)) {
    let lives = subjects.into_iter().map(async |subject| {
        let name = subject.name.clone();
        AssertUnwindSafe(live(subject)).catch_unwind().await.map_err(|_| name)
    });
    let failed: Vec<String> = join_all(lives).await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "these did not live as they should: {failed:?}");
}

/// From its start over loading, serving, unloading, sleep and waking to the crash and back: Ready, its reason, what is
/// in memory and the version are right in each state, and no inference, load, wake-up or restarted idle timer is ours.
// The fakes answer in time whatever the tests wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_life_is_disturbed_and_each_is_told_truly() {
    let (scene, board) = stage_().await;
    let subjects = everything(&scene, &board).await;
    each(subjects, async |mut subject| {
        for stage in subject.setting.stages {
            subject.go(stage).await;
            subject.stay(stage, 2).await;
        }
        // What nobody knows has no series either.
        let last = subject.setting.stages.last().unwrap();
        let metrics = subject.scene.operator.metrics().await;
        let told = metric_value(&metrics, "ollama_fleet_model_loaded", &[("server", &subject.name)]);
        assert_eq!(told.is_some(), matches!(last.memory, Memory::Known([_, ..])), "{}", subject.name);
    })
    .await;
}

/// A soak: 200 polls of each (40 in the short form), in two states of its life where it has two that the operator can
/// tell apart, and no write of a status but those of the change between them.
// The fakes answer in time whatever the tests wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_write_nothing() {
    let polls = if full() { 200 } else { 40 };
    let (scene, board) = stage_().await;
    let subjects = everything(&scene, &board).await;
    let writes = scene.writes().await;
    each(subjects, async |mut subject| {
        let stages = subject.setting.stages;
        let up = |stage: &&Stage| stage.life != Life::Down;
        let first = stages.iter().rfind(up).unwrap();
        let seen = |stage: &Stage| (stage.reason, stage.memory);
        let second = stages.iter().filter(up).find(|stage| seen(stage) != seen(first)).unwrap_or(first);
        for stage in [first, second] {
            subject.go(stage).await;
            subject.stay(stage, 3).await;
            let before = writes.writes(&subject.name).await.len();
            subject.stay(stage, polls / 2).await;
            let after = writes.writes(&subject.name).await;
            assert_eq!(after.len(), before, "{} {:?}: {after:?}", subject.name, stage.life);
        }
    })
    .await;
}

/// `LiteLLM` 1.108.7 at the default path of Generic: `/health` runs a completion of every model at its provider. That is
/// noticed at its first answer, the message names the path to write, and it is not asked again until the spec changes.
#[tokio::test]
async fn a_path_that_runs_models_is_asked_once() {
    let scene = Scene::new(1).await;
    let mut fake = FakeServer::new(&LITELLM).await;
    fake.become_(Life::Serving).await;
    let spec = json!({"backendType": "Generic"});
    scene.apply(&server_with("litellm", fake.address.to_string(), spec)).await;
    scene.until("litellm", "Accepted", "False", "HealthPathRunsModels").await;
    let (.., message) = condition(&scene.get("litellm").await, "Accepted").unwrap();
    assert!(message.contains("/health/liveliness"), "{message}");
    holds_for(Duration::from_secs(5), "it is not asked again", async || {
        let counts = fake.counts();
        if fake.asked("/health") == 1 { Ok(()) } else { Err(format!("{counts:?} {:?}", fake.all_asked())) }
    })
    .await;
    scene.patch_spec("litellm", json!({"healthPath": "/health/liveliness"})).await;
    scene.until_online("litellm").await;
    scene.until("litellm", "Accepted", "True", "Valid").await;
    assert_eq!(fake.asked("/health"), 1);
    assert_eq!(fake.counts(), Counts { inferences: 2, ..FREE });
}

/// Open `WebUI` 0.12.4 (`/api/version` is open, `/api/ps` a page), llama-swap v250 (`/api/version` is its own) and LM
/// Studio (an error with status 200) are no Ollama, which is told at once; asking them costs nothing.
#[tokio::test]
async fn what_looks_like_an_ollama_is_none() {
    let scene = Scene::new(1).await;
    let mut fakes = Vec::new();
    for (program, life) in
        [(OPEN_WEBUI, Life::Serving), (LLAMA_SWAP, Life::Unloaded), (LM_STUDIO, Life::Unloaded)]
    {
        let mut fake = FakeServer::new(&program).await;
        fake.become_(life).await;
        scene.apply(&server_with(program.name, fake.address.to_string(), json!({}))).await;
        fakes.push((program, life, fake));
    }
    for (program, life, fake) in &fakes {
        scene.within(Duration::from_secs(4), program.name, "Ready", "False", "NotOllama").await;
        assert_eq!((fake.counts(), fake.life()), (FREE, *life), "{}", program.name);
    }
}

/// One row of the table: the server, its backendType, and a healthPath that it may have.
type Documented = (String, String, Option<String>);

/// What stands between backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the table under "What to write"; one for each healthPath to choose from.
fn documented(page: &str) -> BTreeSet<Documented> {
    let section = page.split("\n## ").find(|section| section.starts_with("What to write")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ["));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [server, backend, _, health, _] = cells[..] else { panic!("not five cells: {row}") };
        let (name, rest) = server.strip_prefix('[').and_then(|server| server.split_once(']')).unwrap();
        let title = format!("{name}{}", rest.split_once(')').unwrap().1);
        let backend = code(backend).remove(0);
        // What follows is what must not be written.
        let paths = code(health.split("never").next().unwrap_or_default());
        let paths = if paths.is_empty() { vec![None] } else { paths.into_iter().map(Some).collect() };
        paths.into_iter().map(move |path| (title.clone(), backend.clone(), path)).collect::<Vec<_>>()
    })
    .collect()
}

/// The settings that are tested here are those of the table in `docs/backends.md`, no more and no fewer, and the page
/// names the version of each fake, and whether the program was run.
#[test]
fn the_settings_are_those_of_the_documentation() {
    let page = fs::read_to_string(binaries::repository().join("docs/backends.md")).unwrap();
    let of = |program: &Program| {
        let title = program.title.to_owned();
        program.settings.iter().map(move |setting| {
            (title.clone(), setting.backend_type.to_owned(), setting.health_path.map(str::to_owned))
        })
    };
    let tested: BTreeSet<Documented> = servers::all().iter().flat_map(of).collect();
    assert_eq!(tested, documented(&page));

    for Program { title, version, known, .. } in servers::all() {
        let name = title.split(',').next().unwrap();
        let about = |section: &&str| {
            section.lines().next().is_some_and(|heading| heading.split(" and ").any(|one| one == name))
        };
        let section = page.split("\n### ").skip(1).find(about).unwrap_or_default();
        assert!(section.contains(version), "{title}: no {version} in {section}");
        let how: &[&str] = match known {
            Known::Run => &["*Run*", "*Seen before*"],
            Known::Read => &["*Read*"],
        };
        assert!(how.iter().any(|how| section.contains(how)), "{title} is {known:?}: {section}");
    }
}
