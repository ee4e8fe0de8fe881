//! A scene whose operator reaches the API server through the fault proxy only.

use super::{ApiProxy, ControlPlane, Operator, Scene, metric_value, operator::Builder};
use serde_json::{Value, json};
use std::{env, ops::Deref};

/// Dereferences to the scene; its client goes past the proxy.
pub struct Faulty {
    pub scene: Scene,
    pub proxy: ApiProxy,
}

impl Faulty {
    pub async fn new(hosts: usize) -> Self {
        Self::with(hosts, &json!({}), |builder| builder).await
    }

    pub async fn with(hosts: usize, scenario: &Value, flags: impl FnOnce(Builder) -> Builder) -> Self {
        let proxy = ApiProxy::start(ControlPlane::shared());
        let kubeconfig = proxy.kubeconfig();
        let scene = Scene::with(hosts, scenario, |builder| flags(builder.kubeconfig(&kubeconfig))).await;
        Self { scene, proxy }
    }

    /// What every fault must leave whole: the process lives, says so, and nothing of it has ended by a bug.
    pub async fn is_well(&self) {
        is_well(&self.scene.operator).await;
    }
}

impl Deref for Faulty {
    type Target = Scene;
    fn deref(&self) -> &Scene {
        &self.scene
    }
}

/// The process lives, says so, and nothing of it has ended by a bug.
pub async fn is_well(operator: &Operator) {
    assert_eq!(operator.livez().await, Ok(200));
    assert_eq!(metric_value(&operator.metrics().await, "ollama_fleet_panics_total", &[]), Some(0.0));
    assert!(!operator.log().contains("panicked"), "{}", operator.log());
}

/// Whether the long forms are asked for: `TEST_FAULTS=full`, which `make faults` sets.
pub fn full() -> bool {
    env::var_os("TEST_FAULTS").is_some_and(|value| value == "full")
}
