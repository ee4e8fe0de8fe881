//! The HTTP clients: one for each address that a poll asks, so that its connections are nobody else's and end with it,
//! upon a connector for each way to secure a connection. Making one of these means reading keys and authorities, so each
//! is kept while it is used; and no longer, because it holds a key.

use super::{
    connect::{Connector, Destination},
    resolve::CheckedResolver,
    tls::{ClientConfigs, TlsSettings},
};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Connectors that are kept: a fleet of the size that this is made for, with certificates of its own for every host. Past
/// it hosts are still asked, by connectors that are made for one poll.
const KEPT_MAX: usize = 10_000;
/// What the certificates and keys of all connectors that are kept may take: room for 10,000 hosts with an authority and a
/// certificate of their own, and an eighth of the memory that the chart gives. Who is kept stays; others are asked as past
/// the number above.
const BYTES_MAX: usize = 64 << 20;
/// A connector that was not used for this long goes. Hosts are asked every few seconds; for the few that are asked less
/// often, making one anew is nothing.
const UNUSED_MAX: Duration = Duration::from_mins(2);
/// Headers of one answer; Ollama and the known exporters send fewer than ten.
const HEADERS_MAX: usize = 64;
/// What a connection may hold of an answer that is not taken yet, and so the longest head. Without a bound of ours it is
/// some 400 KiB, and a thousand hosts that never end their headers would take half a GiB.
const BUFFER_MAX: usize = 32 << 10;

pub type HttpClient = Client<Connector, Empty<Bytes>>;

/// What one poll asks one address with.
pub struct Route {
    pub client: HttpClient,
    pub destination: Arc<Destination>,
}

/// The clients of all hosts and agents. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    resolver: CheckedResolver,
    configs: Arc<ClientConfigs>,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    connectors: HashMap<TlsSettings, KeptConnector>,
    /// What their settings hold, by its place in memory, as many of them may hold the same.
    held: HashMap<usize, usize>,
    /// Of all that is held.
    bytes: usize,
    swept: Instant,
}

struct KeptConnector {
    connector: Connector,
    used: Instant,
}

impl Clients {
    pub fn new(resolver: CheckedResolver, configs: ClientConfigs) -> Self {
        let kept = Kept { connectors: HashMap::new(), held: HashMap::new(), bytes: 0, swept: Instant::now() };
        Self { resolver, configs: Arc::new(configs), kept: Arc::new(Mutex::new(kept)) }
    }

    /// A client that dials nothing but this. A poll closes its connection with its last request; what a failed poll
    /// leaves open goes with the client.
    pub fn route(&self, settings: &TlsSettings, destination: Destination) -> Route {
        let client = Client::builder(TokioExecutor::new())
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(BUFFER_MAX)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(None)
            .build(self.connector(settings));
        Route { client, destination: Arc::new(destination) }
    }

    /// The connector for these settings.
    fn connector(&self, settings: &TlsSettings) -> Connector {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(kept.swept) >= UNUSED_MAX {
            kept.sweep(now);
        }
        if let Some(kept) = kept.connectors.get_mut(settings) {
            kept.used = now;
            return kept.connector.clone();
        }
        let name = settings.server_name.clone().map(Into::into);
        let connector = Connector::new(self.resolver.clone(), self.configs.make(settings), name);
        kept.keep(settings, &connector, now);
        connector
    }
}

impl Kept {
    /// Keeps a connector, if there is room for it and for what it holds.
    fn keep(&mut self, settings: &TlsSettings, connector: &Connector, now: Instant) {
        let new = settings.weights().filter(|weight| !self.held.contains_key(&weight.place));
        let bytes = self.bytes + new.map(|weight| weight.bytes).sum::<usize>();
        if self.connectors.len() >= KEPT_MAX || bytes > BYTES_MAX {
            return;
        }
        self.bytes = bytes;
        self.held.extend(settings.weights().map(|weight| (weight.place, weight.bytes)));
        self.connectors.insert(settings.clone(), KeptConnector { connector: connector.clone(), used: now });
    }

    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        self.connectors.retain(|_, kept| now.duration_since(kept.used) < UNUSED_MAX);
        let weights = self.connectors.keys().flat_map(TlsSettings::weights);
        self.held = weights.map(|weight| (weight.place, weight.bytes)).collect();
        self.bytes = self.held.values().sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{
        NameServers,
        address::{AddressPolicy, SharedPolicy},
        tls::Authorities,
    };
    use rustls::pki_types::DnsName;

    fn named(number: usize) -> TlsSettings {
        let server_name = Some(DnsName::try_from(format!("gpu{number}.lab")).unwrap());
        TlsSettings { server_name, ..TlsSettings::default() }
    }

    fn clients() -> Clients {
        let policy = SharedPolicy::new(AddressPolicy::default());
        Clients::new(CheckedResolver::new(policy, NameServers::System), ClientConfigs::new().unwrap())
    }

    fn kept(clients: &Clients) -> usize {
        clients.kept.lock().unwrap().connectors.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connector_is_kept_while_it_is_used_and_no_longer() {
        let clients = clients();
        for _ in 0..3 {
            clients.connector(&named(1));
            clients.connector(&named(2));
        }
        assert_eq!(kept(&clients), 2);
        tokio::time::advance(UNUSED_MAX / 2).await;
        clients.connector(&named(1));
        tokio::time::advance(UNUSED_MAX / 2).await;
        clients.connector(&named(1));
        assert_eq!(kept(&clients), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_what_is_kept_and_none_to_what_is_asked() {
        let clients = clients();
        for number in 0..KEPT_MAX + 10 {
            clients.connector(&named(number));
        }
        assert_eq!(kept(&clients), KEPT_MAX);
    }

    /// Some 180 KiB.
    fn large() -> String {
        let mut params = rcgen::CertificateParams::new(vec!["gpu1.lab".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "x".repeat(30_000));
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().repeat(3)
    }

    fn with_authorities(number: usize, authorities: &Authorities) -> TlsSettings {
        TlsSettings { authorities: Some(authorities.clone()), ..named(number) }
    }

    /// However large the certificates are that many owners wrote down, who is kept stays, what is kept is bounded, and who
    /// needs no memory finds room.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_by_what_it_holds() {
        let clients = clients();
        let pem = large();
        for number in 0..1000 {
            let authorities = Authorities::from_pem(pem.as_bytes()).unwrap();
            clients.connector(&with_authorities(number, &authorities));
        }
        let bytes = clients.kept.lock().unwrap().bytes;
        assert!((BYTES_MAX - (1 << 20)..=BYTES_MAX).contains(&bytes), "{bytes}");
        let before = kept(&clients);
        assert!((300..450).contains(&before), "{before}");
        let first = with_authorities(0, &Authorities::from_pem(pem.as_bytes()).unwrap());
        assert!(clients.kept.lock().unwrap().connectors.contains_key(&first));
        clients.connector(&named(1));
        assert_eq!(kept(&clients), before + 1);
        // What is used no more makes room.
        tokio::time::advance(UNUSED_MAX).await;
        clients.connector(&with_authorities(1000, &Authorities::from_pem(pem.as_bytes()).unwrap()));
        assert_eq!(kept(&clients), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_share_counts_once() {
        let clients = clients();
        let authorities = Authorities::from_pem(large().as_bytes()).unwrap();
        for number in 0..1000 {
            clients.connector(&with_authorities(number, &authorities));
        }
        assert_eq!(kept(&clients), 1000);
    }
}
