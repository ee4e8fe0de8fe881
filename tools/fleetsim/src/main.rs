//! Simulates a fleet of Ollama hosts and their agents, with faults.
//!
//! One process plays all hosts, each on a loopback address of its own. Tests
//! change the hosts through the control API and read there what the hosts have
//! witnessed. Nothing here is reachable from outside the machine.
#![deny(unsafe_code)]

mod action;
mod address;
mod agent;
mod args;
mod conn;
mod control;
mod distort;
mod fault;
mod fleet;
mod http;
mod inject;
mod listen;
mod models;
mod ollama;
mod patch;
mod serve;
mod state;
mod stats;
mod weird;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, FORBIDDEN_PORT};
use crate::fleet::Fleet;
use crate::listen::Listeners;
use crate::patch::{Scenario, patched};

/// Descriptors left for connections when every host has sockets of its own.
const SPARE_DESCRIPTORS: u64 = 1000;

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleetsim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), String> {
    args.check()?;
    let descriptors = raise_descriptors();
    if !args.shared() && args.hosts as u64 * 2 + SPARE_DESCRIPTORS > descriptors {
        return Err(format!(
            "{} hosts with sockets of their own need more than the {descriptors} descriptors \
             allowed: use --sockets shared",
            args.hosts
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let result = runtime.block_on(run(args));
    // Hanging connections are no reason to stay.
    runtime.shutdown_background();
    result
}

/// Raises the soft limit to the hard one; the limit afterwards.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

async fn run(args: &Args) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let scenario = scenario(args)?;

    let range = address::Range::new(args.address, args.hosts)?;
    let listeners = Listeners::new(range, [args.ollama_port, args.agent_port], args.shared())
        .map_err(|error| format!("cannot listen: {error}"))?;
    let ports = listeners.ports();
    let control = TcpListener::bind(args.control)
        .await
        .map_err(|error| format!("cannot listen: {}: {error}", args.control))?;
    let control_address = control.local_addr().map_err(text)?;
    if ports.contains(&FORBIDDEN_PORT) || control_address.port() == FORBIDDEN_PORT {
        return Err(format!("port {FORBIDDEN_PORT} is Ollama's own: take another"));
    }

    let fleet = Arc::new(Fleet::new(range, args.hosts, listeners, args.seed));
    begin(&fleet, &scenario).await?;
    tokio::spawn(control::run(control, Arc::clone(&fleet), ports));

    let ready = serde_json::json!({
        "ready": true,
        "control": control_address.to_string(),
        "hosts": args.hosts,
        "ollamaPort": ports[0],
        "agentPort": ports[1],
        "firstAddress": args.address.to_string(),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).map_err(text)?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_ends(), if args.exit_with_stdin => {}
    }
    Ok(())
}

fn scenario(args: &Args) -> Result<Scenario, String> {
    let Some(path) = &args.scenario else {
        return Ok(Scenario::default());
    };
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

/// Gives every host its first state, then lets them answer.
async fn begin(fleet: &Arc<Fleet>, scenario: &Scenario) -> Result<(), String> {
    // One change for all hosts with the same patches: they share the new state.
    let mut by_host = vec![Vec::new(); fleet.hosts.len()];
    for (selector, patch) in &scenario.hosts {
        for index in address::select(selector, fleet.hosts.len())? {
            by_host[index].push(patch);
        }
    }
    let mut groups = std::collections::HashMap::<Vec<usize>, Vec<usize>>::new();
    for (index, patches) in by_host.iter().enumerate() {
        let key = patches.iter().map(|patch| std::ptr::from_ref(*patch).addr()).collect();
        groups.entry(key).or_default().push(index);
    }
    for chosen in groups.values() {
        let patches = scenario.defaults.iter().chain(by_host[chosen[0]].iter().copied());
        let patches: Vec<_> = patches.collect();
        let change = |old: &state::HostState| {
            patches.iter().try_fold(old.clone(), |state, patch| patched(&state, patch))
        };
        let changed = fleet.change(chosen, change, false).await;
        changed.map_err(|error| format!("start: {error}"))?;
    }
    fleet.run().await;
    Ok(())
}

/// Returns at the end of stdin. A thread of its own, because a blocked read
/// must not keep the runtime from ending.
async fn stdin_ends() {
    let (sender, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut scratch = [0; 1024];
        while matches!(std::io::stdin().read(&mut scratch), Ok(1..)) {}
        drop(sender);
    });
    let _ = ended.await;
}
