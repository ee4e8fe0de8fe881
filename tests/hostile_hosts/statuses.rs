//! H15: what the status of an answer comes to, and what a host may say about when to come back.

use super::{GAP, VERDICT, list};
use crate::support::{Scene, eventually, objects::has_condition};
use serde_json::{Value, json};

fn status(code: u16) -> Value {
    json!({"mode": "status", "code": code})
}

fn later(code: u16, when: &str) -> Value {
    json!({"mode": "status", "code": code, "retryAfter": when})
}

/// Every class of status has its reason. Retry-After moves nothing: a host decides neither that it is asked at once
/// again nor that it is not asked for a year; failing hosts keep their interval.
#[tokio::test]
async fn statuses_have_reasons_and_retry_after_moves_no_schedule() {
    const POLLS: usize = 7;
    let rows = [
        (status(401), "Unauthorized"),
        (status(407), "Unauthorized"),
        (status(403), "HostRejected"),
        (status(404), "NotOllama"),
        (status(405), "NotOllama"),
        (status(400), "InvalidResponse"),
        (status(418), "InvalidResponse"),
        (status(451), "InvalidResponse"),
        (status(500), "InvalidResponse"),
        (status(501), "InvalidResponse"),
        (status(502), "ProxyError"),
        (status(504), "ProxyError"),
        (status(599), "InvalidResponse"),
        (status(503), "ServerBusy"),
        (later(503, "0"), "ServerBusy"),
        (later(503, "31536000"), "ServerBusy"),
        (later(429, "0"), "ServerBusy"),
        (later(429, "31536000"), "ServerBusy"),
        (later(429, "99999999999999999999"), "ServerBusy"),
        (later(429, "-1"), "ServerBusy"),
        (later(429, "soon, perhaps"), "ServerBusy"),
        (later(429, "Fri, 31 Dec 9999 23:59:59 GMT"), "ServerBusy"),
        (later(429, "Thu, 01 Jan 1970 00:00:00 GMT"), "ServerBusy"),
    ];
    let scene = Scene::new(rows.len()).await;
    for (host, (fault, _)) in rows.iter().enumerate() {
        scene.fleet.patch(&host.to_string(), json!({ "ollama": fault })).await;
        scene.server(&format!("s{host:02}"), host, json!({})).await;
    }
    eventually(VERDICT, "every status is its reason", async || {
        let servers = list(&scene.client, &scene.namespace).await;
        let wrong: Vec<String> = (rows.iter().enumerate())
            .filter_map(|(host, (fault, reason))| {
                let object = &servers[&format!("s{host:02}")];
                has_condition(object, "Ready", "False", reason).err().map(|error| format!("{fault}: {error}"))
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    })
    .await;
    scene.fleet.reset_stats().await;
    let all = eventually(VERDICT, "each is asked some more times", async || {
        let all = scene.fleet.arrivals("all", "/api/version").await;
        let least = all.values().map(Vec::len).min().unwrap_or_default();
        if all.len() == rows.len() && least > POLLS { Ok(all) } else { Err(format!("{least} of {POLLS}")) }
    })
    .await;
    for (host, arrivals) in all {
        let gaps: Vec<i64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= GAP), "{host} is asked too seldom: {gaps:?}");
        // A late poll makes the next gap short, but over several it evens out: a second each.
        let whole = arrivals[POLLS] - arrivals[0];
        let wanted = i64::try_from(POLLS).unwrap() * 1000;
        assert!(whole >= wanted - 900, "{host} is asked too often: {gaps:?}");
    }
}
