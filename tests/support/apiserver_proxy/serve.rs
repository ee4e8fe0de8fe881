//! One request on its way: written down, matched with the rules, passed on or not.

use super::{Answer, Fault, Request, Shared, watches};
use axum::body::{Body, Bytes, to_bytes};
use hyper::{Request as HttpRequest, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{future::pending, io, sync::Arc};
use tokio::net::TcpListener;

type Answered = io::Result<Response<Body>>;

pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&shared), request));
            // An error is a connection that a rule has ended, or that the client has given up.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn handle(shared: Arc<Shared>, request: HttpRequest<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
    let seen = Request::new(
        &head.method,
        head.uri.path(),
        head.uri.query().unwrap_or_default(),
        String::from_utf8_lossy(&body).into_owned(),
    );
    let (number, fault) = {
        let mut state = shared.lock();
        let fault = state.fault_for(&seen);
        state.requests.push(seen.clone());
        (state.requests.len() - 1, fault)
    };
    let note = |code: Option<u16>, applied: bool| {
        // The book may have been emptied meanwhile.
        if let Some(noted) = shared.lock().requests.get_mut(number).filter(|noted| noted.at == seen.at) {
            (noted.code, noted.applied) = (code, applied);
        }
    };
    let forward = async || {
        let answer = forward(&shared, head, body, &seen).await?;
        note(None, answer.status().is_success());
        Ok::<_, io::Error>(answer)
    };
    let cut = || Err(io::Error::other("cut"));
    let answer = match fault {
        None => forward().await?,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            forward().await?
        }
        Some(Fault::Drop) => return cut(),
        Some(Fault::DropAnswer) => {
            forward().await?;
            return cut();
        }
        Some(Fault::Hang) => pending().await,
        Some(Fault::HangAnswer) => {
            forward().await?;
            pending().await
        }
        Some(Fault::Answer(answer)) => {
            let answer = own(answer);
            note(Some(answer.status().as_u16()), false);
            return Ok(answer);
        }
        Some(Fault::CallThenDrop(call)) => {
            tokio::task::block_in_place(|| call());
            return cut();
        }
        Some(Fault::CallAfterwards(call)) => {
            forward().await?;
            tokio::task::block_in_place(|| call());
            return cut();
        }
    };
    note(Some(answer.status().as_u16()), answer.status().is_success());
    Ok(answer)
}

fn own(answer: Answer) -> Response<Body> {
    let mut builder = Response::builder().status(answer.code).header("content-type", "application/json");
    if let Some(value) = answer.retry_after {
        builder = builder.header("retry-after", value);
    }
    builder.body(answer.body.into()).unwrap()
}

async fn forward(
    shared: &Arc<Shared>,
    head: hyper::http::request::Parts,
    body: Bytes,
    seen: &Request,
) -> Answered {
    let client =
        if head.headers.contains_key("authorization") { &shared.nobody } else { &shared.administrator };
    let mut builder =
        HttpRequest::builder().method(head.method).uri(head.uri.path_and_query().unwrap().as_str());
    for (name, value) in &head.headers {
        // Those of the connection are the client's own.
        if !matches!(name.as_str(), "host" | "content-length" | "connection" | "transfer-encoding") {
            builder = builder.header(name, value);
        }
    }
    let request = builder.body(kube::client::Body::from(body.to_vec())).unwrap();
    let answer = client.send(request).await.map_err(io::Error::other)?;
    let (mut head, body) = answer.into_parts();
    for name in ["connection", "transfer-encoding", "content-length"] {
        head.headers.remove(name);
    }
    let body = Body::new(body);
    let body = if seen.verb == "watch" && head.status.is_success() {
        watches::pass(Arc::clone(shared), seen.resource.clone(), body)
    } else {
        to_bytes(body, usize::MAX).await.map_err(io::Error::other)?.into()
    };
    Ok(Response::from_parts(head, body))
}
