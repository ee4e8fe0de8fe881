//! The command line: what may be asked for, and the checks that need no socket.
//!
//! Nothing here opens a socket or reads a file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Ollama's own port. A simulated host must never be mistaken for a real one.
pub const FORBIDDEN_PORT: u16 = 11434;

/// Above this many hosts `--sockets auto` shares the listeners.
pub const OWN_SOCKETS_LIMIT: usize = 2000;

/// Simulates a fleet of Ollama hosts and their agents, with faults.
#[derive(Debug, Clone, Parser)]
#[command(name = "fleetsim", version)]
pub struct Args {
    /// How many hosts to simulate.
    #[arg(long)]
    pub hosts: usize,
    /// Address of the first host; the others follow it.
    #[arg(long, default_value = "127.10.0.1")]
    pub address: Ipv4Addr,
    /// Port of Ollama on every host; 0 takes a free one.
    #[arg(long, default_value_t = 20434)]
    pub ollama_port: u16,
    /// Port of the agent on every host; 0 takes a free one.
    #[arg(long, default_value_t = 20100)]
    pub agent_port: u16,
    /// Listening sockets: one pair per host, or one pair for all.
    #[arg(long, value_enum, default_value_t = Sockets::Auto)]
    pub sockets: Sockets,
    /// Address of the control API.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub control: SocketAddr,
    /// State patches to apply before the first request is served.
    #[arg(long)]
    pub scenario: Option<PathBuf>,
    /// Exit when stdin reaches its end.
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// Makes random content repeatable.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How the hosts listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sockets {
    /// `own` up to 2000 hosts, else `shared`.
    Auto,
    /// Every host has sockets of its own, and can refuse connections.
    Own,
    /// One wildcard socket per port; hosts are told apart by the address called.
    Shared,
}

impl Args {
    /// Resolves `auto`.
    pub fn shared(&self) -> bool {
        match self.sockets {
            Sockets::Auto => self.hosts > OWN_SOCKETS_LIMIT,
            Sockets::Own => false,
            Sockets::Shared => true,
        }
    }

    /// Says what is wrong with the arguments, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if self.hosts == 0 || self.hosts > crate::address::MAX_HOSTS {
            return Err(format!("--hosts must be 1 to {}", crate::address::MAX_HOSTS));
        }
        let ports = [self.ollama_port, self.agent_port, self.control.port()];
        if ports.contains(&FORBIDDEN_PORT) {
            return Err(format!("port {FORBIDDEN_PORT} is Ollama's own: take another"));
        }
        if self.ollama_port == self.agent_port && self.ollama_port != 0 {
            return Err("--ollama-port and --agent-port must differ".to_owned());
        }
        if !self.control.ip().is_loopback() {
            return Err("--control must be a loopback address".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &[&str]) -> Args {
        Args::try_parse_from([&["fleetsim", "--hosts", "3"], rest].concat()).unwrap()
    }

    #[test]
    fn ollamas_port_and_outside_addresses_are_refused() {
        assert!(parse(&[]).check().is_ok());
        assert!(parse(&["--ollama-port", "11434"]).check().is_err());
        assert!(parse(&["--agent-port", "11434"]).check().is_err());
        assert!(parse(&["--control", "0.0.0.0:0"]).check().is_err());
        assert!(parse(&["--agent-port", "20434"]).check().is_err());
    }

    #[test]
    fn many_hosts_share_sockets() {
        let mut args = parse(&[]);
        assert!(!args.shared());
        args.hosts = OWN_SOCKETS_LIMIT + 1;
        assert!(args.shared());
        args.sockets = Sockets::Own;
        assert!(!args.shared());
    }
}
