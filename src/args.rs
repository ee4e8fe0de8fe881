//! The command line. The help text is the reference; every flag has an environment twin `OLLAMA_FLEET_…`.

use crate::{
    api::duration,
    probe::address::{AddressPolicy, Ports, parse_cidr},
    runtime::leader::{Timing, TimingError},
    serve::parse_host,
};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// A Kubernetes operator for Ollama hosts outside the cluster.
#[derive(Debug, Parser)]
#[command(name = "ollama-fleet-operator", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until SIGTERM or SIGINT.
    Run(Box<RunArgs>),
}

/// How the operator runs. Durations are numbers with ms, s, m or h: 10s, 1m30s.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Kubeconfig file; default: $KUBECONFIG, then the pod's ServiceAccount, then ~/.kube/config
    #[arg(long, env = "OLLAMA_FLEET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespaces to watch, separated by commas; default: all
    #[arg(long, env = "OLLAMA_FLEET_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,

    #[command(flatten)]
    pub poll: PollArgs,

    #[command(flatten)]
    pub address: AddressArgs,

    #[command(flatten)]
    pub serve: ServeArgs,

    #[command(flatten)]
    pub leader: LeaderArgs,

    /// Servers up to which /metrics has every series of each server; above it only up, condition, last poll and who is not checked
    #[arg(long, env = "OLLAMA_FLEET_METRICS_SERVER_LIMIT", default_value_t = 2000, value_name = "COUNT")]
    pub metrics_server_limit: usize,

    /// Format of the log on standard error
    #[arg(long, env = "OLLAMA_FLEET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How often and how patiently hosts are asked where the object does not say.
#[derive(Args, Clone, Debug)]
pub struct PollArgs {
    /// Time between two polls of one server
    #[arg(long, env = "OLLAMA_FLEET_POLL_INTERVAL", default_value = "10s", value_parser = poll_interval, value_name = "DURATION")]
    pub poll_interval: Duration,

    /// Time that one poll may take in all; at most 80% of the interval is used
    #[arg(long, env = "OLLAMA_FLEET_POLL_TIMEOUT", default_value = "5s", value_parser = poll_timeout, value_name = "DURATION")]
    pub poll_timeout: Duration,

    /// Polls that must fail in a row before a server counts as offline
    #[arg(long, env = "OLLAMA_FLEET_FAILURE_THRESHOLD", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    pub failure_threshold: u32,

    /// Shortest interval that an object may ask for; a shorter one is raised to this
    #[arg(long, env = "OLLAMA_FLEET_MIN_POLL_INTERVAL", default_value = "5s", value_parser = poll_interval, value_name = "DURATION")]
    pub min_poll_interval: Duration,
}

/// What may be dialled. Link-local, metadata, multicast, unspecified and broadcast addresses never.
#[derive(Args, Clone, Debug)]
pub struct AddressArgs {
    /// Networks that must not be dialled, besides loopback, the Services, the API server and the pod itself; the pods'
    /// for example; separated by commas
    #[arg(long, env = "OLLAMA_FLEET_DENIED_CIDRS", value_delimiter = ',', value_parser = parse_cidr, value_name = "CIDR")]
    pub denied_cidrs: Vec<IpNet>,

    /// Networks that re-open loopback and what is denied; link-local and metadata addresses stay closed; separated by
    /// commas
    #[arg(long, env = "OLLAMA_FLEET_ALLOWED_CIDRS", value_delimiter = ',', value_parser = parse_cidr, value_name = "CIDR")]
    pub allowed_cidrs: Vec<IpNet>,

    /// Nothing outside these networks is dialled; opens none of what is denied; separated by commas; default: all
    #[arg(long, env = "OLLAMA_FLEET_ONLY_CIDRS", value_delimiter = ',', value_parser = parse_cidr, value_name = "CIDR")]
    pub only_cidrs: Vec<IpNet>,

    /// Ports of hosts and agents that may be dialled: numbers and ranges, separated by commas
    #[arg(long, env = "OLLAMA_FLEET_ALLOWED_PORTS", default_value_t = Ports::default(), value_name = "PORTS")]
    pub allowed_ports: Ports,
}

impl AddressArgs {
    /// The policy that these flags make.
    pub fn policy(&self) -> AddressPolicy {
        AddressPolicy {
            denied: self.denied_cidrs.clone(),
            allowed: self.allowed_cidrs.clone(),
            only: self.only_cidrs.clone(),
            ports: self.allowed_ports.clone(),
        }
    }
}

/// The two listeners.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address for /livez and /readyz, plain HTTP; `:8081` means every address
    #[arg(long, env = "OLLAMA_FLEET_HEALTH_LISTEN", default_value = ":8081", value_parser = listen_address, value_name = "ADDRESS")]
    pub health_listen: SocketAddr,

    /// Address for /metrics and /api/…: TLS, or plain HTTP on a loopback address without --tls-cert-file
    #[arg(long, env = "OLLAMA_FLEET_LISTEN", default_value = ":8443", value_parser = listen_address, value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Certificate chain in PEM for --listen; default: a self-signed one, made at start
    #[arg(long, env = "OLLAMA_FLEET_TLS_CERT_FILE", requires = "tls_key_file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// Private key in PEM for --tls-cert-file
    #[arg(long, env = "OLLAMA_FLEET_TLS_KEY_FILE", requires = "tls_cert_file", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Names that requests to --listen may have as Host, separated by commas; addresses, localhost, and names of Services
    /// that end in .svc always may. Needed behind an ingress, or an API server's public name
    #[arg(long, env = "OLLAMA_FLEET_ALLOWED_HOSTS", value_delimiter = ',', value_parser = parse_host, value_name = "NAME")]
    pub allowed_hosts: Vec<String>,

    /// Who may read --listen: holders of a token, what its owner has the right to, or, on loopback only, everybody
    #[arg(long, env = "OLLAMA_FLEET_API_AUTH", value_enum, default_value_t = ApiAuth::Kubernetes)]
    pub api_auth: ApiAuth,
}

/// Which of several replicas acts.
#[derive(Args, Clone, Debug)]
pub struct LeaderArgs {
    /// Poll and write only while holding the Lease ollama-fleet-operator, so that of several replicas one does; the
    /// others stand by
    #[arg(
        long, env = "OLLAMA_FLEET_LEADER_ELECT", num_args = 0..=1, require_equals = true, action = ArgAction::Set,
        default_value_t = false, default_missing_value = "true", value_name = "BOOL"
    )]
    pub leader_elect: bool,

    /// Namespace of the Lease; default: that of the environment, `POD_NAMESPACE`, then the pod's, then the kubeconfig's
    #[arg(long, env = "OLLAMA_FLEET_LEADER_ELECT_NAMESPACE", value_name = "NAMESPACE")]
    pub leader_elect_namespace: Option<String>,

    /// Time after the leader's last sign of life until another replica takes over
    #[arg(long, env = "OLLAMA_FLEET_LEASE_DURATION", default_value = "15s", value_parser = lease_time, value_name = "DURATION")]
    pub lease_duration: Duration,

    /// Time after the last renewal until the leader ends itself; shorter than --lease-duration
    #[arg(long, env = "OLLAMA_FLEET_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = lease_time, value_name = "DURATION")]
    pub lease_renew_deadline: Duration,

    /// Time between two renewals, and at most between two looks of a replica that stands by
    #[arg(long, env = "OLLAMA_FLEET_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = lease_time, value_name = "DURATION")]
    pub lease_retry_period: Duration,
}

impl LeaderArgs {
    /// The times of the election, if they go together.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        Timing::new(self.lease_duration, self.lease_renew_deadline, self.lease_retry_period)
    }
}

impl Cli {
    /// The arguments of this process; wrong ones end it with what to write instead.
    pub fn parse_or_exit() -> Self {
        let cli = Self::parse();
        let Command::Run(args) = &cli.command;
        if let Err(error) = args.leader.timing() {
            Self::command().error(ErrorKind::ValueValidation, error).exit();
        }
        cli
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ApiAuth {
    Kubernetes,
    None,
}

/// `:8443` is every address, IPv6 included where the machine has it.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("`{text}` is no address; write :8443, 127.0.0.1:8443 or [::1]:8443"))
}

fn poll_interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(1), Duration::from_hours(24))
}

fn poll_timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), Duration::from_mins(5))
}

/// The record has whole seconds, and whoever waits for minutes is no replacement.
fn lease_time(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), Duration::from_mins(5))
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let value = duration::parse_flag(text)?;
    if value < least || value > most {
        return Err(format!("`{text}` is out of range; write a duration between {least:?} and {most:?}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_of_the_election_go_together() {
        let parsed = |args: &[&str]| {
            let Command::Run(args) = Cli::try_parse_from([&["x", "run"], args].concat()).unwrap().command;
            args.leader
        };
        for (args, elects) in [
            (&[][..], false),
            (&["--leader-elect"], true),
            (&["--leader-elect=true"], true),
            (&["--leader-elect=false"], false),
        ] {
            let leader = parsed(args);
            assert_eq!((leader.leader_elect, leader.timing().is_ok()), (elects, true));
        }
        assert_eq!(parsed(&["--lease-duration=10s"]).timing(), Err(TimingError::Deadline));
        assert_eq!(parsed(&["--lease-retry-period=9s"]).timing(), Err(TimingError::Retry));
    }

    #[test]
    fn a_bare_port_means_every_address() {
        assert_eq!(listen_address(":8443").unwrap().to_string(), "[::]:8443");
        assert!(listen_address("8443").is_err());
    }
}
