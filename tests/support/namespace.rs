//! A namespace of a test's own.

use super::control_plane::{self, ControlPlane};
use k8s_openapi::api::core::v1::Namespace as Object;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use std::{
    fmt,
    ops::Deref,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A fresh namespace; deleted, without waiting for it, when dropped. Dereferences to its name.
pub struct Namespace {
    name: String,
    kubeconfig: PathBuf,
}

impl Namespace {
    pub async fn new(control_plane: &ControlPlane) -> Self {
        Self::with_labels(control_plane, &[]).await
    }

    pub async fn with_labels(control_plane: &ControlPlane, labels: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut object = Object::default();
        object.metadata.name = Some(name.clone());
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        object.metadata.labels = Some(labels.collect());
        let api = Api::<Object>::all(control_plane.client().await);
        api.create(&PostParams::default(), &object).await.unwrap();
        Self { name, kubeconfig: control_plane.kubeconfig().to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for Namespace {
    type Target = str;
    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let (name, kubeconfig) = (self.name.clone(), self.kubeconfig.clone());
        // A runtime cannot be entered from within another, hence the thread.
        let deletion = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let api = Api::<Object>::all(control_plane::client(&kubeconfig).await);
                let limit = std::time::Duration::from_secs(2);
                tokio::time::timeout(limit, api.delete(&name, &DeleteParams::default())).await.ok()?.ok()
            })
        });
        let _ = deletion.join();
    }
}
