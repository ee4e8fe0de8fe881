//! What the operator denies by itself: the addresses of its own pod, of the API server and of Services. Whoever may
//! create a server could otherwise reach through the operator what only pods can reach.
//!
//! The first two are known at start. Services' ranges are `ServiceCIDR` objects, which change once in a cluster's life;
//! they are listed at start and every ten minutes, and a change holds at once for everything that dials.

use crate::probe::address::{AddressPolicy, SharedPolicy};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client, Config, api::ListParams};
use std::{env, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A range for Services is added by hand, and the networks behind it take longer than this to follow.
const REFRESH: Duration = Duration::from_mins(10);
/// After a try that failed for a reason that passes by itself.
const RETRY: Duration = Duration::from_secs(30);
/// The same at start, where nothing is dialled meanwhile.
const RETRY_AT_START: Duration = Duration::from_secs(1);
/// Deadline of a list of two or three.
const TRY_DEADLINE: Duration = Duration::from_secs(3);
/// Where a pod is told its addresses; the chart sets the first.
const POD_ADDRESSES: [&str; 2] = ["POD_IPS", "POD_IP"];
/// Where every pod is told the API server's.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// Keeps the address policy up to date.
pub struct OwnAddresses {
    client: Client,
    policy: Arc<SharedPolicy>,
    /// The policy without the Services.
    base: AddressPolicy,
    /// What the log has been told last, so that it is told once.
    told: Option<String>,
}

/// What came of a try to learn the ranges of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Known,
    /// Only somebody's hand changes it.
    Unknowable,
    NotNow,
}

impl Outcome {
    /// When to try again.
    fn wait(self) -> Duration {
        match self {
            Self::Known | Self::Unknowable => REFRESH,
            Self::NotNow => RETRY,
        }
    }
}

/// Why the ranges of Services are not known.
struct Unknown {
    reason: String,
    /// Only somebody's hand changes it.
    lasting: bool,
}

impl OwnAddresses {
    /// Puts what is known at start into force.
    pub fn new(client: Client, policy: Arc<SharedPolicy>, known: Vec<IpAddr>) -> Self {
        let base = policy.get().denying(known.into_iter().map(|address| IpNet::from(address.to_canonical())));
        policy.set(base.clone());
        Self { client, policy, base, told: None }
    }

    /// Learns the ranges of Services before anything is dialled: as long as the API server may still tell them, nobody
    /// can use the time in which they are not known. Where it never will, the log says so, and polls begin.
    pub async fn learn(&mut self, shutdown: &CancellationToken) {
        while self.refresh().await == Outcome::NotNow {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(RETRY_AT_START) => {}
            }
        }
    }

    /// One try. What is known stays in force if it fails.
    async fn refresh(&mut self) -> Outcome {
        let listed = timeout(TRY_DEADLINE, service_networks(&self.client)).await.unwrap_or_else(|_| {
            Err(Unknown { reason: "the API server did not answer in time".into(), lasting: false })
        });
        match listed {
            Ok(networks) => {
                self.told = None;
                if self.policy.set(self.base.denying(networks.iter().copied())) {
                    tracing::info!(?networks, "the addresses of Services are not dialled");
                }
                Outcome::Known
            }
            Err(Unknown { reason, lasting }) => {
                if self.told.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "the addresses of Services are not known; name them with --denied-cidrs"
                    );
                    self.told = Some(reason);
                }
                if lasting { Outcome::Unknowable } else { Outcome::NotNow }
            }
        }
    }

    /// Goes on until the end, after they were learned once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wait = REFRESH;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(wait) => wait = self.refresh().await.wait(),
            }
        }
    }
}

/// The addresses of the API server and of this pod, as far as configuration and environment tell.
pub fn known(config: &Config) -> Vec<IpAddr> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let host = config.cluster_url.host().unwrap_or_default();
    let pod = POD_ADDRESSES.map(variable).join(",");
    literals(host).chain(literals(&variable(SERVICE_HOST))).chain(literals(&pod)).collect()
}

/// The addresses in a list; names are somebody else's.
fn literals(text: &str) -> impl Iterator<Item = IpAddr> {
    let bare = |part: &str| part.trim().trim_start_matches('[').trim_end_matches(']').parse().ok();
    text.split(',').filter_map(bare)
}

async fn service_networks(client: &Client) -> Result<Vec<IpNet>, Unknown> {
    let api: Api<ServiceCIDR> = Api::all(client.clone());
    let listed = api.list(&ListParams::default()).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => {
            Unknown { reason: "no right to list ServiceCIDRs".into(), lasting: true }
        }
        kube::Error::Api(status) if status.code == 404 => {
            Unknown { reason: "this cluster has no ServiceCIDRs".into(), lasting: true }
        }
        kube::Error::Api(status) => {
            let reason = format!("the API server answered {} {}", status.code, status.reason);
            Unknown { reason, lasting: false }
        }
        _ => Unknown { reason: "the API server cannot be reached".into(), lasting: false },
    })?;
    let texts = listed.items.into_iter().filter_map(|object| object.spec?.cidrs).flatten();
    let mut networks: Vec<IpNet> = texts.filter_map(|text| text.parse().ok()).collect();
    // In one order, so that the same list is the same policy.
    networks.sort_unstable();
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use std::sync::Mutex;

    /// An API server that gives what it has been handed.
    fn apiserver(answer: &Arc<Mutex<(u16, Value)>>) -> Client {
        let answer = Arc::clone(answer);
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/apis/networking.k8s.io/v1/servicecidrs");
            let (status, body) = answer.lock().unwrap().clone();
            let body = Body::from(body.to_string().into_bytes());
            async move { Response::builder().status(status).body(body) }
        });
        Client::new(service, "default")
    }

    fn list(cidrs: &[&[&str]]) -> (u16, Value) {
        let items: Vec<_> =
            cidrs.iter().map(|cidrs| json!({"metadata": {}, "spec": {"cidrs": cidrs}})).collect();
        (200, json!({"metadata": {}, "items": items}))
    }

    fn failure(code: u16) -> (u16, Value) {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "R"});
        (code, status)
    }

    #[tokio::test]
    async fn services_are_denied_while_they_are_there_and_known() {
        let answer = Arc::new(Mutex::new(failure(500)));
        let policy = SharedPolicy::new(AddressPolicy::default());
        let known = vec!["10.9.0.7".parse().unwrap(), "::ffff:10.9.0.8".parse().unwrap()];
        let mut own = OwnAddresses::new(apiserver(&answer), Arc::clone(&policy), known);
        let mut changes = policy.changes();
        let refused = |address: &str| policy.get().check(address.parse().unwrap()).is_err();
        assert!(refused("10.9.0.7") && refused("10.9.0.8") && !refused("10.9.0.9"));

        for (failing, outcome) in
            [(500, Outcome::NotNow), (403, Outcome::Unknowable), (404, Outcome::Unknowable)]
        {
            *answer.lock().unwrap() = failure(failing);
            assert_eq!(own.refresh().await, outcome, "{failing}");
            assert!(!refused("10.96.0.1") && !changes.has_changed().unwrap());
        }
        *answer.lock().unwrap() = list(&[&["10.96.0.0/12", "fd00:10::/112"], &["nonsense", "10.8.0.0/16"]]);
        assert_eq!(own.refresh().await, Outcome::Known);
        assert!(changes.has_changed().unwrap());
        changes.borrow_and_update();
        for address in ["10.96.0.1", "fd00:10::1", "10.8.1.1", "10.9.0.7"] {
            assert!(refused(address), "{address}");
        }
        // The same list in another order is no change, and a failure forgets nothing.
        *answer.lock().unwrap() = list(&[&["10.8.0.0/16"], &["fd00:10::/112", "10.96.0.0/12"]]);
        own.refresh().await;
        *answer.lock().unwrap() = failure(403);
        own.refresh().await;
        assert!(refused("10.96.0.1") && !changes.has_changed().unwrap());
        *answer.lock().unwrap() = list(&[&["10.8.0.0/16"]]);
        own.refresh().await;
        assert!(!refused("10.96.0.1") && refused("10.8.1.1") && refused("10.9.0.7"));
    }

    /// An API server in trouble is waited for, one that has no such objects or no right for us is not.
    #[tokio::test(start_paused = true)]
    async fn nothing_begins_before_the_ranges_can_be_known() {
        let answer = Arc::new(Mutex::new(failure(503)));
        let policy = SharedPolicy::new(AddressPolicy::default());
        let mut own = OwnAddresses::new(apiserver(&answer), Arc::clone(&policy), Vec::new());
        let shutdown = CancellationToken::new();
        assert!(timeout(Duration::from_mins(1), own.learn(&shutdown)).await.is_err());
        let book = Arc::clone(&answer);
        tokio::spawn(async move {
            sleep(Duration::from_secs(10)).await;
            *book.lock().unwrap() = list(&[&["10.96.0.0/12"]]);
        });
        own.learn(&shutdown).await;
        assert!(policy.get().check("10.96.0.1".parse().unwrap()).is_err());
        for never in [403, 404] {
            *answer.lock().unwrap() = failure(never);
            timeout(RETRY_AT_START / 2, own.learn(&shutdown)).await.unwrap();
        }
        *answer.lock().unwrap() = failure(503);
        shutdown.cancel();
        timeout(RETRY_AT_START / 2, own.learn(&shutdown)).await.unwrap();
    }

    #[test]
    fn literals_are_read_wherever_they_stand() {
        let read = |text| literals(text).map(|address| address.to_string()).collect::<Vec<_>>();
        assert_eq!(read("10.0.0.1,fd00::1"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(read("[fd00::1]"), ["fd00::1"]);
        assert!(read("kubernetes.default.svc").is_empty() && read("").is_empty());
    }
}
