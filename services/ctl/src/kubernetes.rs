//! The Kubernetes API server, as a pod sees it: a few kinds of requests, each on
//! a connection of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_runtime::{OpenMode, Runtime};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where Kubernetes puts what a pod needs to talk to it.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Longest time for a request, its connection included.
const LIMIT: Duration = Duration::from_secs(15);

/// A page of 100 claims has some 200 KiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A token has a few KiB, and `ca.crt` a few certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why something was not done.
#[derive(Debug, Error)]
pub enum ApiError {
    /// A variable that Kubernetes sets in every container is missing.
    #[error("{variable} is not set: this command runs in a pod of a Kubernetes cluster")]
    NotInCluster {
        /// The variable.
        variable: &'static str,
    },
    /// A file of the service account cannot be used.
    #[error("{}: {source}; does the pod mount the token of its service account?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The address of the API server has no meaning.
    #[error("{address:?} is not the address of an API server")]
    Address {
        /// The address.
        address: String,
    },
    /// There was no answer.
    #[error("the API server {address} cannot be asked: {source}")]
    Transport {
        /// The API server.
        address: String,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service account lacks a right.
    #[error(
        "the service account may not {verb} {resource}; its Role or ClusterRole must allow that ({message})"
    )]
    Forbidden {
        /// What it may not do.
        verb: &'static str,
        /// With what.
        resource: String,
        /// What the API server says.
        message: String,
    },
    /// It was changed or replaced meanwhile.
    #[error("{resource} was changed by somebody else meanwhile ({message})")]
    Conflict {
        /// What.
        resource: String,
        /// What the API server says.
        message: String,
    },
    /// The API server answered with an error.
    #[error("the API server refuses to {verb} {resource}: {status} {message}")]
    Refused {
        /// What was asked for.
        verb: &'static str,
        /// Of what.
        resource: String,
        /// The status.
        status: StatusCode,
        /// What the API server says.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("the API server's answer about {resource} cannot be understood: {source}")]
    Answer {
        /// About what.
        resource: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// Whether the same may work in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Conflict { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    /// In words of Kubernetes: `get`, `list`, `patch`, `delete`.
    pub(crate) verb: &'static str,
    /// For people: `persistentvolumeclaims in namespace x`.
    pub(crate) resource: String,
    pub(crate) path: String,
    /// With its type.
    pub(crate) body: Option<(&'static str, serde_json::Value)>,
}

/// Where the API server is, and who asks.
#[derive(Debug)]
pub(crate) struct ApiServer {
    runtime: Runtime,
    address: String,
    name: ServerName<'static>,
    directory: PathBuf,
}

impl ApiServer {
    /// Takes what Kubernetes tells every container.
    pub(crate) fn of_pod(
        runtime: &Runtime,
        directory: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ApiError> {
        let needed = |name| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.ok_or(ApiError::NotInCluster { variable: name })
        };
        let host = needed("KUBERNETES_SERVICE_HOST")?;
        let port = needed("KUBERNETES_SERVICE_PORT")?;
        let is_v6 = host.contains(':');
        let address = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let name = ServerName::try_from(host);
        let name = name.map_err(|_| ApiError::Address { address: address.clone() })?;
        Ok(Self { runtime: runtime.clone(), address, name, directory: directory.to_owned() })
    }

    /// The namespace of the pod.
    pub(crate) async fn own_namespace(&self) -> Result<String, ApiError> {
        self.text("namespace").await
    }

    /// Asks, and understands the answer; `None` when there is no such object.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Option<T>, ApiError> {
        let Call { verb, resource, path, body } = call;
        let (status, answer) = self.send(verb, &path, body).await?;
        let message = || {
            let status: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
            let message = status.get("message").and_then(|message| message.as_str());
            message.unwrap_or("without a reason").to_owned()
        };
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => match serde_json::from_slice(&answer) {
                Ok(object) => Ok(Some(object)),
                Err(source) => Err(ApiError::Answer { resource, source }),
            },
            // Quotas and admission refuse with the same status; this is how the
            // authoriser words it.
            StatusCode::FORBIDDEN if message().contains(&format!("cannot {verb} resource")) => {
                Err(ApiError::Forbidden { verb, resource, message: message() })
            }
            StatusCode::CONFLICT => Err(ApiError::Conflict { resource, message: message() }),
            status => Err(ApiError::Refused { verb, resource, status, message: message() }),
        }
    }

    async fn send(
        &self,
        verb: &'static str,
        path: &str,
        body: Option<(&'static str, serde_json::Value)>,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        // Read anew each time: both are replaced while the pod lives.
        let certificates = self.file("ca.crt").await?;
        let token = self.text("token").await?;
        let transport = |source| ApiError::Transport { address: self.address.clone(), source };
        let tls = self.trusting(&certificates)?;
        let method = match verb {
            "patch" => Method::PATCH,
            "delete" => Method::DELETE,
            _ => Method::GET,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("accept", "application/json")
            .header("user-agent", concat!("holdfastctl/", env!("CARGO_PKG_VERSION")))
            .header("authorization", format!("Bearer {token}"));
        let mut content = Bytes::new();
        if let Some((kind, value)) = body {
            request = request.header("content-type", kind);
            content = value.to_string().into();
        }
        let request = request.body(Full::new(content)).map_err(|error| transport(error.into()))?;
        let exchanged = self.runtime.timeout(LIMIT, self.exchange(&tls, request)).await;
        exchanged.map_err(|late| transport(late.into()))?.map_err(transport)
    }

    async fn exchange(
        &self,
        tls: &TlsConnector,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let socket = self.runtime.connect(&self.address).await?;
        let stream = tls.connect(self.name.clone(), socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?;
            Ok((status, body.to_bytes()))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // What it has read may be the rest of the answer.
            ended = connection => match exchange.await {
                Err(_) if ended.is_err() => Err(ended.err().map_or("broken".into(), Into::into)),
                answer => answer,
            },
        }
    }

    /// TLS that trusts the cluster's own authority, and no other.
    fn trusting(&self, certificates: &[u8]) -> Result<TlsConnector, ApiError> {
        let bad = |reason: &dyn std::fmt::Display| ApiError::File {
            path: self.directory.join("ca.crt"),
            source: io::Error::new(io::ErrorKind::InvalidData, reason.to_string()),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates) {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        if roots.is_empty() {
            return Err(bad(&"there is no certificate in it"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn text(&self, name: &str) -> Result<String, ApiError> {
        let text = String::from_utf8(self.file(name).await?).ok();
        let text = text.map(|text| text.trim().to_owned()).filter(|text| {
            // It becomes part of a header or of a path.
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
        });
        text.ok_or_else(|| ApiError::File {
            path: self.directory.join(name),
            source: io::Error::new(io::ErrorKind::InvalidData, "it is empty or not one word"),
        })
    }

    async fn file(&self, name: &str) -> Result<Vec<u8>, ApiError> {
        let path = self.directory.join(name);
        let (files, opened) = (self.runtime.files(), path.clone());
        let read = self.runtime.blocking(move || {
            let file = files.open(&opened, OpenMode::Read)?;
            let bytes = usize::try_from(file.len()?.min(MAX_FILE_BYTES));
            let mut content = vec![0; bytes.unwrap_or_default()];
            let read = file.read_at(&mut content, 0)?;
            content.truncate(read);
            Ok(content)
        });
        let read = read.await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        read.map_err(|source| ApiError::File { path, source })
    }
}
