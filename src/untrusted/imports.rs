//! What `kubectl ollama import` reads, up to the manifests and the report.

use super::{assert_clean, assert_clean_text};
use crate::import::{
    self, compose as composed, dotenv as env_file,
    plugins::PluginFile,
    report::Report,
    settings::{SERVERS, Settings},
};
use std::str;

/// `OLLAMA_SERVERS`.
pub fn servers_json(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    convert([(SERVERS.to_owned(), text.to_owned())].into(), &[]);
}

/// A `plugin.json`, whose folder may have any name.
pub fn plugin_json(text: &[u8]) {
    let text = String::from_utf8_lossy(text).into_owned();
    let folder = text.chars().take(16).collect();
    let settings = [(SERVERS.to_owned(), "[]".to_owned())].into();
    convert(settings, &[PluginFile { folder, text: Ok(text) }]);
}

/// A `.env` file.
pub fn dotenv(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    match env_file::parse(text, &env_file::Variables::new()) {
        Ok(variables) => {
            for (name, value) in &variables {
                // Letters of any script, as compose takes them.
                assert!(!name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace()));
                if let Err(error) = value {
                    assert_clean_text(error);
                }
            }
            let mut report = Report::default();
            match composed::of_interest(&variables, &mut report) {
                Ok(settings) => convert_reported(settings, &[], report),
                Err(error) => assert_clean_text(&error),
            }
        }
        Err(error) => assert_clean_text(&error),
    }
}

/// A compose file.
pub fn compose(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Err(error) = composed::parse(text, &env_file::Variables::new()) {
        assert_clean_text(&error);
    }
}

fn convert(settings: Settings, files: &[PluginFile]) {
    convert_reported(settings, files, Report::default());
}

fn convert_reported(settings: Settings, files: &[PluginFile], report: Report) {
    let import = match import::convert(&settings, Some(files), Some("ml"), report) {
        Ok(import) => import,
        Err(error) => return assert_clean_text(&error),
    };
    for finding in &import.report.findings {
        assert_clean_text(&finding.to_string());
    }
    for object in &import.objects {
        assert_clean(&object.json);
        // What is printed is what was meant.
        assert_eq!(
            serde_saphyr::from_str::<serde_json::Value>(&object.yaml).ok().as_ref(),
            Some(&object.json)
        );
        for line in object.yaml.lines() {
            assert_clean_text(line);
        }
    }
    for line in import.comments.iter().flat_map(|comment| comment.lines()) {
        assert!(line.is_empty() || line.starts_with('#'), "{line:?}");
        assert_clean_text(line);
    }
}
