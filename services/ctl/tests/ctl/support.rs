//! The binary, and servers made for a test.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) said: String,
    pub(crate) complained: String,
}

pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command.env_clear().envs(variables.iter().copied()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary was built")
}

/// Waits for its end.
pub(crate) fn end(child: Child) -> Done {
    let output = child.wait_with_output().expect("a child of ours");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let status = output.status.code().expect("it ended by itself");
    Done { status, said: text(output.stdout), complained: text(output.stderr) }
}

pub(crate) fn ctl_now(arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    end(start(arguments, variables))
}

/// Runs the binary while the servers of the test go on.
pub(crate) async fn ctl(arguments: &[&str], variables: &[(&str, &str)]) -> Done {
    end_beside(start(arguments, variables)).await
}

pub(crate) async fn end_beside(child: Child) -> Done {
    tokio::task::spawn_blocking(move || end(child)).await.expect("it does not panic")
}

/// Makes hyper close the connection.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

/// What a server answers; nothing to close the connection instead.
pub(crate) type Answer = Option<Response<Bytes>>;

/// A server that runs until the test ends.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) address: String,
    /// How many connections there were.
    pub(crate) connections: Arc<AtomicUsize>,
}

pub(crate) async fn serve<H>(tls: Option<TlsAcceptor>, handle: H) -> Serving
where
    H: Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let handle = Arc::new(handle);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let (tls, handle) = (tls.clone(), Arc::clone(&handle));
            tokio::spawn(async move {
                match tls {
                    None => serve_on(stream, handle).await,
                    // A client that does not trust us goes away.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve_on(stream, handle).await;
                        }
                    }
                }
            });
        }
    });
    Serving { address, connections }
}

async fn serve_on<S, H>(stream: S, handle: Arc<H>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Bytes>) -> Answer,
{
    let service = service_fn(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        // A body that was cut off is nobody's request.
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        let answer = handle(Request::from_parts(head, body)).ok_or(Closed)?;
        Ok::<_, Closed>(answer.map(Full::new))
    });
    // However it ends, the client has seen it.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Some(Response::builder().status(status).body(body.into()).expect("a good answer"))
}
