//! What the host has: version, models on disk, models in memory; and how that differs from what was known.

use super::{
    memory::Memory,
    size::{AtMost, bytes},
};
use crate::{
    api::{
        OllamaServerStatus,
        ollama_server::BackendType,
        quantity::Quantity,
        server_status::{LOADED_MODELS_MAX, LoadedModel, MODELS_BYTES_MAX, Model},
    },
    controller::server::transition::Transition,
    probe::report::{Expiry, HostReport, LoadedSeen, ModelSeen, Part},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

/// Most models that status lists, whatever their size; also the bound in the schema.
const MODELS_LISTED_MAX: usize = 500;

/// Bytes of the list of loaded models: some 30 with names of the usual length.
const LOADED_BYTES_MAX: usize = 8 * 1024;
/// Bytes that loaded models and plugins may take before the list of models must give way, so that the object stays
/// under 32 KiB.
const BESIDE_BYTES: usize = 2 * 1024;
/// In such steps, so that a number with one more digit does not change which models are listed.
const BESIDE_STEP: usize = 2 * 1024;

/// Introduces, in Reachable's message, the endpoints that give nothing.
pub const STALE_PARTS: &str = ", but gives no usable answer about ";

/// Readings of one endpoint that failed in a row while the host itself was online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    version: u32,
    models: u32,
    loaded: u32,
}

impl Misses {
    /// What an earlier process had found to fail for long, from the message that it wrote.
    pub fn from_message(message: &str) -> Self {
        let failing = message.split_once(STALE_PARTS).and_then(|(_, rest)| rest.split_once(':'));
        let named = |field: &str| {
            let named =
                failing.is_some_and(|(fields, _)| fields.split(" and ").any(|name| name.trim() == field));
            if named { u32::MAX } else { 0 }
        };
        Self { version: named("version"), models: named("models"), loaded: named("loadedModels") }
    }

    /// The endpoints that have failed so often that people should know that what stands in status is old.
    pub fn persistent(self, threshold: u32) -> Vec<&'static str> {
        let rows = [(self.version, "version"), (self.models, "models"), (self.loaded, "loadedModels")];
        rows.into_iter().filter(|(misses, _)| *misses >= threshold).map(|(_, field)| field).collect()
    }
}

/// Takes over what the host said. What it did not say stays as it was known; of what it says that it cannot tell, nothing
/// stays, and that is no news.
pub fn observe(memory: &mut Memory, report: HostReport, transitions: &mut Vec<Transition>) {
    let Memory { status, misses, .. } = memory;
    count(&mut misses.version, &report.version, status.version.is_some());
    count(&mut misses.models, &report.models, status.models.is_some());
    count(&mut misses.loaded, &report.loaded, status.loaded_models.is_some());
    let loaded_before = match &report.loaded {
        // Nor is what it had of use, once it cannot tell.
        Part::Known(_) | Part::Unknown => memory.loaded_before.take(),
        _ => None,
    };
    let status = memory.status_mut();
    // Only Ollama's lists have sizes; those of others are unknown, also while they are empty.
    let has_sizes = status.observed_backend.as_deref() == Some(BackendType::Ollama.as_str());
    if report.version == Part::Unknown {
        status.version = None;
    }
    if report.loaded == Part::Unknown {
        (status.loaded_models, status.loaded_count, status.vram_used) = (None, None, None);
    }
    if report.models == Part::Unknown {
        (status.models, status.model_count, status.model_size) = (None, None, None);
        status.models_omitted = None;
    }
    if let Part::Known(version) = report.version {
        if let Some(from) = status.version.take().filter(|from| *from != version) {
            transitions.push(Transition::VersionChanged { from, to: version.clone() });
        }
        status.version = Some(version);
    }
    if let Part::Known(seen) = report.loaded {
        let mut listed: Vec<_> = seen.iter().take(LOADED_MODELS_MAX).map(loaded_model).collect();
        if listed.as_slice().at_most() > LOADED_BYTES_MAX {
            listed = fitting(listed.into_iter(), LOADED_BYTES_MAX);
        }
        let all = i32::try_from(seen.len()).ok();
        let known = status
            .loaded_models
            .take()
            .map(|models| LoadedBefore { models, count: status.loaded_count })
            .or(loaded_before);
        if let Some(LoadedBefore { models, count }) = &known {
            let old = Names {
                names: models.iter().map(|model| model.name.as_str()).collect(),
                cut: is_cut(models.len(), *count),
            };
            let new = Names {
                names: listed.iter().map(|model| model.name.as_str()).collect(),
                cut: is_cut(listed.len(), all),
            };
            differ(&old, &new, transitions, Transition::ModelLoaded, Transition::ModelUnloaded);
        }
        status.loaded_count = all;
        status.vram_used = total(seen.iter().map(|model| model.vram), has_sizes);
        status.loaded_models = Some(listed);
    }
    if let Part::Known(seen) = report.models {
        let listed = fitting(seen.iter().take(MODELS_LISTED_MAX).map(model), room_for_models(status, 0));
        let omitted = seen.len() - listed.len();
        if let Some(known) = &status.models {
            let old_cut = status.models_omitted.is_some_and(|omitted| omitted > 0);
            let old = Names { names: known.iter().map(|model| model.name.as_str()).collect(), cut: old_cut };
            let new =
                Names { names: listed.iter().map(|model| model.name.as_str()).collect(), cut: omitted > 0 };
            differ(&old, &new, transitions, Transition::ModelAdded, Transition::ModelRemoved);
        }
        status.model_count = i32::try_from(seen.len()).ok();
        status.model_size = total(seen.iter().map(|model| model.size), has_sizes);
        status.models_omitted = i32::try_from(omitted).ok().filter(|omitted| *omitted > 0);
        // The same list is not kept twice.
        if status.models.as_deref() != Some(&listed) {
            status.models = Some(listed.into());
        }
    }
}

/// What was in the memory of a host when it was last known.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedBefore {
    models: Vec<LoadedModel>,
    /// Of all, also those that are not listed.
    count: Option<i32>,
}

/// What is in the memory of a host that is down is unknown, and goes without a word. It is kept aside, so that on the
/// host's return only what differs is told.
pub fn forget_loaded(memory: &mut Memory) {
    let OllamaServerStatus { loaded_models, loaded_count, vram_used, .. } = &*memory.status;
    if loaded_models.is_none() && loaded_count.is_none() && vram_used.is_none() {
        return;
    }
    let status = memory.status_mut();
    let count = status.loaded_count.take();
    status.vram_used = None;
    let before = status.loaded_models.take().map(|models| LoadedBefore { models, count });
    memory.loaded_before = before.or(memory.loaded_before.take());
}

/// An endpoint that was there and now is not fails like any other; one that never was is an old version's.
fn count<T>(misses: &mut u32, part: &Part<T>, was_there: bool) {
    match part {
        Part::Missing if was_there => *misses = misses.saturating_add(1),
        Part::Failed(_) => *misses = misses.saturating_add(1),
        Part::Known(_) | Part::Missing | Part::Unknown => *misses = 0,
        Part::NotAsked => {}
    }
}

/// Whether a list is shorter than what it is about.
fn is_cut(listed: usize, all: Option<i32>) -> bool {
    all.and_then(|all| usize::try_from(all).ok()).is_some_and(|all| listed < all)
}

/// Sorted names; `cut` when the list ends before the truth does.
struct Names<'a> {
    names: Vec<&'a str>,
    cut: bool,
}

/// A cut list says nothing about names behind its last one, so only names up to there can have come or gone.
fn differ(
    old: &Names<'_>,
    new: &Names<'_>,
    transitions: &mut Vec<Transition>,
    came: fn(String) -> Transition,
    went: fn(String) -> Transition,
) {
    let limit =
        |list: &Names<'_>| list.cut.then(|| list.names.last().map(|name| (*name).to_owned())).flatten();
    let limits = [limit(old), limit(new)];
    let told = |name: &str| limits.iter().flatten().all(|last| name <= last.as_str());
    for name in new.names.iter().filter(|name| told(name) && old.names.binary_search(name).is_err()) {
        transitions.push(came((*name).to_owned()));
    }
    for name in old.names.iter().filter(|name| told(name) && new.names.binary_search(name).is_err()) {
        transitions.push(went((*name).to_owned()));
    }
}

/// The sum of the known sizes; unknown when there are models and none has a known size, or where sizes are never told.
fn total(sizes: impl Iterator<Item = Option<u64>>, has_sizes: bool) -> Option<Quantity> {
    let (mut any, mut known, mut sum) = (false, false, 0u64);
    for size in sizes {
        any = true;
        known |= size.is_some();
        sum = sum.saturating_add(size.unwrap_or_default());
    }
    (known || (!any && has_sizes)).then(|| Quantity::from_bytes_mi(sum))
}

/// Lets the list of models give way to what agents have said since it was made, and to `more` bytes of conditions.
pub fn make_room(memory: &mut Memory, more: usize) {
    let OllamaServerStatus { models, loaded_models, plugins, .. } = &*memory.status;
    let Some(models) = models else { return };
    let beside =
        loaded_models.as_deref().map_or(0, AtMost::at_most) + plugins.as_deref().map_or(0, AtMost::at_most);
    // Models never give way to more than what is there beside them.
    if models.at_most() + beside + more <= MODELS_BYTES_MAX {
        return;
    }
    let status = memory.status_mut();
    let room = room_for_models(status, more);
    let Some(listed) = status.models.take() else { return };
    let before = listed.len();
    let fitting = fitting(listed.iter(), room);
    let cut = i32::try_from(before - fitting.len()).unwrap_or(i32::MAX);
    if cut > 0 {
        status.models_omitted = Some(status.models_omitted.unwrap_or(0).saturating_add(cut));
    }
    status.models = Some(if cut > 0 { fitting.into_iter().cloned().collect() } else { listed });
}

fn room_for_models(status: &OllamaServerStatus, more: usize) -> usize {
    let beside = bytes(&status.loaded_models) + bytes(&status.plugins) + more;
    let excess = beside.saturating_sub(BESIDE_BYTES).next_multiple_of(BESIDE_STEP);
    MODELS_BYTES_MAX.saturating_sub(excess)
}

/// As many of the first entries as fit the bytes that status spends on them.
fn fitting<T: Serialize>(entries: impl Iterator<Item = T>, room: usize) -> Vec<T> {
    let mut spent = 0;
    entries
        .take_while(|entry| {
            spent += bytes(entry) + 1;
            spent <= room
        })
        .collect()
}

fn model(seen: &ModelSeen) -> Model {
    Model {
        name: seen.name.clone(),
        digest: seen.digest.clone(),
        size: seen.size.map(Quantity::from_bytes_mi),
        family: seen.family.clone(),
        parameter_size: seen.parameter_size.clone(),
        quantization: seen.quantization.clone(),
        context_length: seen.context_length,
        capabilities: seen.capabilities.clone(),
        modified_time: seen.modified.map(Time),
        remote_host: seen.remote_host.clone(),
    }
}

fn loaded_model(seen: &LoadedSeen) -> LoadedModel {
    let (state, expires) = match seen.expires {
        Expiry::Past(at) => ("Stopping", Some(at)),
        Expiry::At(at) => ("Loaded", Some(at)),
        Expiry::Never | Expiry::Unknown => ("Loaded", None),
    };
    LoadedModel {
        name: seen.name.clone(),
        digest: seen.digest.clone(),
        size: seen.size.map(Quantity::from_bytes_mi),
        vram: seen.vram.map(Quantity::from_bytes_mi),
        context_length: seen.context_length,
        processor: processor(seen.size, seen.vram),
        state: state.to_owned(),
        expiration_time: expires.map(Time),
    }
}

/// Where a model runs, as `ollama ps` computes it; `None` where the host gives no sizes at all.
fn processor(size: Option<u64>, vram: Option<u64>) -> Option<String> {
    let (size, vram) = (size?, vram?);
    Some(if vram == 0 {
        "100% CPU".to_owned()
    } else if vram == size {
        "100% GPU".to_owned()
    } else if vram > size {
        "Unknown".to_owned()
    } else {
        let cpu = (u128::from(size - vram) * 200 + u128::from(size)) / (u128::from(size) * 2);
        format!("{cpu}%/{}% CPU/GPU", 100 - cpu)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some(100), Some(0), Some("100% CPU"))]
    #[case(Some(100), Some(100), Some("100% GPU"))]
    #[case(Some(100), Some(101), Some("Unknown"))]
    #[case(Some(0), Some(1), Some("Unknown"))]
    #[case(Some(100), Some(75), Some("25%/75% CPU/GPU"))]
    #[case(Some(1000), Some(996), Some("0%/100% CPU/GPU"))]
    #[case(None, None, None)]
    fn processors_read_as_the_cli_prints_them(
        #[case] size: Option<u64>,
        #[case] vram: Option<u64>,
        #[case] text: Option<&str>,
    ) {
        assert_eq!(processor(size, vram).as_deref(), text);
    }

    #[test]
    fn unknown_sizes_are_not_zero() {
        assert_eq!(total([None, None].into_iter(), true), None);
        assert_eq!(total([].into_iter(), true), Some(Quantity("0Mi".into())));
        assert_eq!(total([].into_iter(), false), None);
        assert_eq!(total([None, Some(1)].into_iter(), true), Some(Quantity("1Mi".into())));
    }

    #[test]
    fn a_cut_list_announces_only_what_it_can_know() {
        let mut transitions = Vec::new();
        let old = Names { names: vec!["a", "b", "d"], cut: true };
        let new = Names { names: vec!["a", "c", "d", "e"], cut: false };
        differ(&old, &new, &mut transitions, Transition::ModelAdded, Transition::ModelRemoved);
        assert_eq!(transitions, [Transition::ModelAdded("c".into()), Transition::ModelRemoved("b".into())]);
    }

    #[test]
    fn three_hundred_models_fit_the_bound() {
        let seen: Vec<ModelSeen> = (0..300)
            .map(|i| ModelSeen {
                name: format!("registry.example.com/team/model-{i:03}:70b-instruct-q4_K_M"),
                digest: Some("f".repeat(64)),
                size: Some(42_949_672_960),
                family: Some("llama".into()),
                parameter_size: Some("70.6B".into()),
                quantization: Some("Q4_K_M".into()),
                ..ModelSeen::default()
            })
            .collect();
        let listed = fitting(seen.iter().map(model), MODELS_BYTES_MAX);
        assert!(listed.len() < 300 && listed.len() > 80);
        assert!(serde_json::to_vec(&listed).unwrap().len() <= MODELS_BYTES_MAX + 2);
    }
}
