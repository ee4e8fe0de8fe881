//! The plugins that are installed right now, each with the newest status planned for it, for everybody who only reads.
//!
//! It judges nothing and writes nothing: the plugin controller replaces it whole.

use crate::api::FleetPlugin;
use kube::ResourceExt;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Plugins by namespace and name.
pub type ByName = BTreeMap<(String, String), Arc<FleetPlugin>>;

/// All plugins that are watched and can be read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// `None`: not listed yet, which is not the same as none.
    plugins: Arc<Mutex<Option<Arc<ByName>>>>,
}

impl Installed {
    /// From now on there are these plugins and no others.
    pub fn replace(&self, plugins: Vec<Arc<FleetPlugin>>) {
        let plugins = plugins.into_iter().map(|plugin| {
            let key = (plugin.namespace().unwrap_or_default(), plugin.name_any());
            (key, plugin)
        });
        let plugins = Arc::new(plugins.collect());
        *self.plugins.lock().unwrap_or_else(PoisonError::into_inner) = Some(plugins);
    }

    /// The plugins as they stand; `None` until they have been listed.
    pub fn all(&self) -> Option<Arc<ByName>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
