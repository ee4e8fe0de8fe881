//! Which model must be in the host's memory for a plugin to be asked (`agent.onlyWhileLoaded`). Pure.

/// What must be in memory, and awake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelNeed {
    /// Nothing: the plugin is asked whatever the host does.
    #[default]
    None,
    Any,
    /// The model that the endpoint's query names: asking about it would load or wake it, whichever else is awake.
    Named(String),
}

impl ModelNeed {
    /// From what a plugin says: `endpoint` is about the model that its query names, such as `/metrics?model=qwen3`.
    pub fn of(only_while_loaded: bool, endpoint: &str) -> Self {
        if !only_while_loaded {
            return Self::None;
        }
        let query = endpoint.split_once('?').map_or("", |(_, query)| query);
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == "model").map_or(Self::Any, |(_, model)| Self::Named(model.into_owned()))
    }

    /// Whether these models in memory are enough.
    pub fn is_met<'a>(&self, mut loaded: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Self::None => true,
            Self::Any => loaded.next().is_some(),
            Self::Named(model) => loaded.any(|name| name == model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// llama-server b10434 in router mode wakes the model that `/metrics?model=` names, also with `autoload=false`.
    #[rstest]
    #[case::not_wanted(false, "/metrics?model=a", &[], true)]
    #[case::nothing_loaded(true, "/metrics", &[], false)]
    #[case::any(true, "/metrics", &["b"], true)]
    #[case::another(true, "/metrics?model=a", &["b"], false)]
    #[case::that_one(true, "/metrics?autoload=false&model=a", &["b", "a"], true)]
    #[case::encoded(true, "/metrics?model=qwen3%3A8b", &["qwen3:8b"], true)]
    #[case::path_is_no_query(true, "/model=a", &["b"], true)]
    fn a_plugin_is_asked_about_what_is_awake(
        #[case] only_while_loaded: bool,
        #[case] endpoint: &str,
        #[case] loaded: &[&str],
        #[case] met: bool,
    ) {
        assert_eq!(ModelNeed::of(only_while_loaded, endpoint).is_met(loaded.iter().copied()), met);
    }
}
