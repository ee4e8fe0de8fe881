//! Every TCP connection that a process begins, told by a shim around `connect()`: a test can tell that an address was
//! not dialled although nobody could have listened there.

use super::{binaries::repository, child};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The variable by which the shim knows where to write.
const FILE: &str = "CONNECTS_FILE";
const PRELOAD: &str = "LD_PRELOAD";

/// What one process has dialled.
pub struct Connects {
    file: PathBuf,
    folder: Option<TempDir>,
}

impl Connects {
    /// For a process that has yet to be started, with the variables of [`Self::env`].
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("connects-").tempdir().unwrap();
        let source = repository().join("tests/support/connect_recorder.c");
        let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(shim(folder.path())).arg(source).arg("-ldl");
        child::run(&mut cc, None).ok();
        Self { file: folder.path().join("connects"), folder: Some(folder) }
    }

    /// Of this process, if it was started under the shim.
    pub fn of_this_process() -> Option<Self> {
        let file = env::var_os(FILE)?.into();
        Some(Self { file, folder: None })
    }

    /// Runs one test again, in a process of its own under the shim; it must succeed there.
    pub fn run_test(name: &str) {
        let connects = Self::new();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).envs(connects.env());
        let said = child::run(&mut command, None);
        eprint!("{}", said.stderr);
        assert!(said.ok().contains("1 passed"), "there is no test {name}");
    }

    pub fn env(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.as_ref().expect("this process was not started here");
        vec![(FILE, self.file.display().to_string()), (PRELOAD, shim(folder.path()).display().to_string())]
    }

    /// What was dialled so far, in this order.
    pub fn all(&self) -> Vec<SocketAddr> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

fn shim(folder: &Path) -> PathBuf {
    folder.join("connect_recorder.so")
}
