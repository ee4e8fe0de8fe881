//! Where the programs are that tests start.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The operator, as cargo built it for this test binary; `OPERATOR_BIN` names another build of it.
pub fn operator() -> PathBuf {
    find("OPERATOR_BIN", &built())
}

fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_ollama-fleet-operator").into()
}

/// kubectl's plugin, from the same build; `KUBECTL_OLLAMA_BIN` names another.
pub fn kubectl_ollama() -> PathBuf {
    find("KUBECTL_OLLAMA_BIN", env!("CARGO_BIN_EXE_kubectl-ollama").as_ref())
}

/// etcd, API server, controllers and kubectl in one.
pub fn control_plane() -> PathBuf {
    find("CONTROL_PLANE_BIN", &tools().join("control-plane"))
}

/// The simulated hosts; built by the same cargo into the same folder as the operator.
pub fn fleetsim() -> PathBuf {
    find("FLEETSIM_BIN", &built().with_file_name("fleetsim"))
}

pub fn helm() -> PathBuf {
    find("HELM_BIN", &tools().join("helm"))
}

/// The folder of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `make tools` puts them.
fn tools() -> PathBuf {
    if let Some(cache) = env::var_os("OLLAMA_FLEET_CACHE").filter(|path| !path.is_empty()) {
        return PathBuf::from(cache).join("bin");
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    cache.expect("neither XDG_CACHE_HOME nor HOME is set").join("ollama-fleet-operator/bin")
}

fn find(variable: &str, default: &Path) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| default.to_owned(), PathBuf::from);
    assert!(
        path.is_file(),
        "{} does not exist: run `make tools`, or name the program in {variable}",
        path.display()
    );
    path
}
