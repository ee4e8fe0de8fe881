//! One started process: signalled and waited for by its own id, and gone at the latest when it is dropped.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Behind a lock, so that a shared process can be signalled and waited for from anywhere.
pub struct Process {
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { pid: child.id(), child: Mutex::new(child) }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal unless the process has been waited for: its id may be someone else's by then.
    pub fn signal(&self, signal: Signal) {
        if self.status().is_none() {
            let _ = kill(Pid::from_raw(self.pid.try_into().unwrap()), signal);
        }
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.lock().try_wait().ok().flatten()
    }

    /// Waits for the end; `None` if it does not come in time.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill(&self) {
        let mut child = self.lock();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The first line that the process prints, or `None` if it ends or dawdles. What follows is read and dropped.
    pub fn first_line(&self, limit: Duration) -> Option<String> {
        let stdout: ChildStdout = self.lock().stdout.take().expect("stdout is piped and read once");
        let (sender, line) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            if let Some(first) = lines.next() {
                let _ = sender.send(first);
            }
            lines.for_each(drop);
        });
        line.recv_timeout(limit).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program that ran to its end has printed.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

impl Output {
    /// Standard output of a program that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}: {}\n{}\n{}", self.what, self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a program that must fail.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.status.success(), "{} must fail, but printed\n{}", self.what, self.stdout);
        self.stderr
    }
}

/// Runs a program to its end, with `stdin` as its whole input.
pub fn run(command: &mut Command, stdin: Option<&str>) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let what =
        format!("{:?}", command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let writer = child.stdin.take().zip(stdin.map(str::to_owned)).map(|(mut pipe, text)| {
        // A program may end without reading all of it.
        thread::spawn(move || std::io::Write::write_all(&mut pipe, text.as_bytes()).ok())
    });
    let output = child.wait_with_output().unwrap();
    writer.map(thread::JoinHandle::join);
    Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        what,
    }
}
