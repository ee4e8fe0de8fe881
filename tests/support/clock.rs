//! A wall clock that the test sets, for a process that is started under it; by a shim, because the operator has no flag
//! for such a thing.

use super::{binaries::repository, child};
use std::{env, fs, os::unix::fs::FileExt as _, process::Command};
use tempfile::TempDir;

/// The clock of one process.
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// For a process that has yet to be started, with the variables of [`Self::env`].
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("clock-").tempdir().unwrap();
        let source = repository().join("tests/support/clock_shift.c");
        let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("shim.so")).arg(source).arg("-ldl");
        child::run(&mut cc, None).ok();
        fs::write(folder.path().join("shift"), 0_i64.to_ne_bytes()).unwrap();
        Self { folder }
    }

    pub fn env(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [("CLOCK_SHIFT_FILE", path("shift")), ("LD_PRELOAD", path("shim.so"))]
    }

    /// From now on it is so many seconds ahead of the true time.
    pub fn set(&self, seconds: i64) {
        // In place: the file is mapped.
        let file = fs::OpenOptions::new().write(true).open(self.folder.path().join("shift")).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
