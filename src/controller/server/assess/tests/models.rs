//! Models, installed and loaded: what comes and goes, and what a failed answer leaves standing.

use super::*;

#[test]
fn models_that_come_and_go_are_announced_by_name() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online_with(&[], &["a"]));
    assert_eq!(
        scene.poll(online_with(&["a", "b"], &["a", "b"])),
        [
            Transition::ModelLoaded("a".into()),
            Transition::ModelLoaded("b".into()),
            Transition::ModelAdded("b".into())
        ]
    );
    assert_eq!(
        scene.poll(online_with(&["b"], &["b"])),
        [Transition::ModelUnloaded("a".into()), Transition::ModelRemoved("a".into())]
    );
}

#[rstest]
#[case::failed(Part::Failed(Failure::InvalidResponse), Part::Failed(Failure::Timeout))]
#[case::missing(Part::Missing, Part::Missing)]
#[case::not_asked(Part::NotAsked, Part::NotAsked)]
fn one_endpoint_never_empties_a_list(
    #[case] loaded: Part<Vec<LoadedSeen>>,
    #[case] models: Part<Vec<ModelSeen>>,
) {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report = HostReport { version: Part::Known("0.24.0".into()), models, loaded };
    for _ in 0..5 {
        assert_eq!(scene.poll(HostOutcome::Online(report.clone())), []);
    }
    assert_eq!(scene.memory.status.models.as_ref().unwrap().len(), 2);
    assert_eq!(scene.memory.status.loaded_models.as_ref().unwrap().len(), 1);
}

#[test]
fn an_endpoint_that_keeps_failing_is_named_in_the_message() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report = HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::NotAsked,
        loaded: Part::Failed(Failure::InvalidResponse),
    };
    let writes = scene.writes_of(|scene| {
        for _ in 0..5 {
            scene.poll(HostOutcome::Online(report.clone()));
        }
    });
    let ready = condition::find(&scene.memory.status.conditions, "Ready").unwrap();
    assert!(ready.message.contains("loadedModels"), "{}", ready.message);
    assert_eq!(writes, 1, "said once, and not before it has lasted");
}

#[test]
fn a_moving_expiry_is_no_reason_to_write_but_stopping_is() {
    let with_expiry = |expires| {
        HostOutcome::Online(HostReport {
            version: Part::Known("0.24.0".into()),
            models: Part::NotAsked,
            loaded: Part::Known(vec![LoadedSeen { name: "a".into(), expires, ..LoadedSeen::default() }]),
        })
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut scene = Scene::new(json!({}));
    scene.poll(with_expiry(Expiry::At(at(1000))));
    assert_eq!(scene.writes_of(|scene| drop(scene.poll(with_expiry(Expiry::At(at(2000)))))), 0);
    assert_eq!(scene.writes_of(|scene| drop(scene.poll(with_expiry(Expiry::Past(at(2000)))))), 1);
    assert_eq!(scene.memory.status.loaded_models.as_ref().unwrap()[0].state, "Stopping");
}

#[test]
fn an_endpoint_that_goes_away_is_said_to_give_nothing() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report =
        HostReport { version: Part::Known("0.24.0".into()), models: Part::NotAsked, loaded: Part::Missing };
    for _ in 0..3 {
        scene.poll(HostOutcome::Online(report.clone()));
    }
    let ready = condition::find(&scene.memory.status.conditions, "Ready").unwrap();
    assert!(ready.message.contains("loadedModels"), "{}", ready.message);
}

/// A machine that is off has nothing in its memory, and one that cannot be reached may have anything there.
#[test]
fn what_is_in_the_memory_of_a_host_that_is_down_is_unknown() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let mut events = Vec::new();
    for _ in 0..3 {
        assert!(scene.memory.status.loaded_models.is_some(), "it stands until there is a verdict");
        events.extend(scene.poll(failed(Failure::Timeout)));
    }
    let status = &scene.memory.status;
    assert_eq!(
        (status.loaded_models.as_ref(), status.loaded_count, status.vram_used.as_ref()),
        (None, None, None)
    );
    assert_eq!(
        (status.model_count, status.version.as_deref()),
        (Some(2), Some("0.24.0")),
        "what is on disk stays"
    );
    assert_eq!(events, [Transition::ServerOffline(Some(Failure::Timeout))], "and goes without a word");
}

#[rstest]
#[case::the_same(&["qwen3:8b"], &[])]
#[case::gone(&[], &[Transition::ModelUnloaded("qwen3:8b".into())])]
#[case::another(&["llama3.2:latest"], &[
    Transition::ModelLoaded("llama3.2:latest".into()),
    Transition::ModelUnloaded("qwen3:8b".into()),
])]
fn on_the_return_of_a_host_only_what_differs_is_told(#[case] loaded: &[&str], #[case] told: &[Transition]) {
    let mut scene = Scene::new(json!({"poll": {"successThreshold": 2}}));
    scene.poll(online());
    for _ in 0..5 {
        scene.poll(failed(Failure::Timeout));
    }
    let back = || online_with(loaded, &["llama3.2:latest", "qwen3:8b"]);
    assert_eq!(scene.poll(back()), [], "it does not count as online yet");
    assert_eq!(scene.memory.status.loaded_count, None);
    let events = scene.poll(back());
    assert_eq!(events[0], Transition::ServerOnline);
    assert_eq!(&events[1..], told);
    assert_eq!(scene.memory.status.loaded_count, i32::try_from(loaded.len()).ok());
    assert_eq!(scene.poll(back()), []);
}

fn vllm() -> Scene {
    Scene::new(json!({"backendType": "VLLM"}))
}

fn listed(names: &[&str], loaded: Part<Vec<LoadedSeen>>) -> HostOutcome {
    let models = names.iter().map(|name| ModelSeen { name: (*name).into(), ..ModelSeen::default() });
    HostOutcome::Online(HostReport { version: Part::Unknown, models: Part::Known(models.collect()), loaded })
}

fn in_memory(names: &[&str]) -> Part<Vec<LoadedSeen>> {
    Part::Known(
        names.iter().map(|name| LoadedSeen { name: (*name).into(), ..LoadedSeen::default() }).collect(),
    )
}

/// `LiteLLM` 1.108.7 and LM Studio 0.4.17 list what they could serve, and not what is in memory.
#[test]
fn what_a_host_cannot_tell_is_not_said() {
    let mut scene = vllm();
    assert_eq!(scene.poll(listed(&["a", "b"], in_memory(&["a"]))), []);
    assert_eq!(scene.memory.status.loaded_count, Some(1));
    let writes = scene.writes_of(|scene| {
        for _ in 0..5 {
            assert_eq!(scene.poll(listed(&["a", "b"], Part::Unknown)), [], "becoming unknown is no news");
        }
    });
    let status = Arc::clone(&scene.memory.status);
    assert_eq!((&status.loaded_models, status.loaded_count, &status.vram_used), (&None, None, &None));
    assert_eq!(status.model_count, Some(2));
    assert_eq!(writes, 1);
    let ready = condition::find(&status.conditions, "Ready").unwrap();
    assert!(!ready.message.contains("loadedModels"), "nothing is out of order: {}", ready.message);
    assert_eq!(scene.poll(listed(&["a", "b"], in_memory(&["b"]))), [], "first knowledge is no news");
    assert_eq!(
        scene.poll(listed(&["a", "b"], in_memory(&["a", "b"]))),
        [Transition::ModelLoaded("a".into())],
        "and from then on it is"
    );
}

/// llama-server b10434 in router mode with everything asleep: nothing is in memory, and of its size nothing was ever known.
#[test]
fn nothing_in_memory_is_a_count_and_not_a_size_where_sizes_are_never_told() {
    let mut scene = vllm();
    scene.poll(listed(&["a"], in_memory(&[])));
    let status = &scene.memory.status;
    assert_eq!((status.loaded_count, &status.vram_used, &status.model_size), (Some(0), &None, &None));
    assert_eq!(status.loaded_models.as_deref(), Some(&[][..]));
    // Ollama tells sizes, so that of nothing is 0.
    let mut scene = Scene::new(json!({}));
    scene.poll(online_with(&[], &[]));
    assert_eq!(scene.memory.status.vram_used.as_ref().unwrap().0, "0Mi");
}

#[test]
fn a_version_goes_with_the_server_that_told_it() {
    let mut scene = vllm();
    let vllm = HostReport {
        version: Part::Known("0.32.0".into()),
        models: Part::NotAsked,
        loaded: in_memory(&["a"]),
    };
    scene.poll(HostOutcome::Online(vllm));
    assert_eq!(scene.memory.status.version.as_deref(), Some("0.32.0"));
    // Another server answers at the same place.
    assert_eq!(scene.poll(listed(&["a"], in_memory(&["a"]))).first(), None);
    assert_eq!(scene.memory.status.version, None);
}
