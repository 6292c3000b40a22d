//! Writing to a data server.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::node::{Address, NodeId};
use holdfast_core::object::{Digest, Kind, Metadata};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{
    HEADER_DIGEST, HEADER_KIND, HEADER_METADATA, HEADER_STAMP, HEADER_VERSION, Received, StagingId,
    WriteAnswer, object_path,
};
use holdfast_http::client::ClientBody;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::BodyDataStream;

use super::{DataServerError, DataServers, encode_header_json, request};

/// Which content a write makes.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The object.
    pub name: ObjectName,
    /// The version it becomes.
    pub version: Version,
    /// Content or tombstone.
    pub kind: Kind,
    /// What the client said about it.
    pub metadata: Metadata,
    /// Digest of the payload.
    pub digest: Digest,
    /// The receiver's stamp in the answer that this write builds on.
    pub stamp: Option<Stamp>,
}

impl WriteRequest {
    fn fill(&self, headers: &mut HeaderMap) {
        let text = |text: String| HeaderValue::try_from(text).expect("digits and hyphens");
        headers.insert(HEADER_VERSION, text(self.version.to_string()));
        headers.insert(HEADER_DIGEST, text(self.digest.to_string()));
        headers.insert(HEADER_METADATA, encode_header_json(&self.metadata));
        if let Some(stamp) = self.stamp {
            headers.insert(HEADER_STAMP, text(stamp.to_string()));
        }
        headers.insert(
            HEADER_KIND,
            HeaderValue::from_static(match self.kind {
                Kind::Object => "object",
                Kind::Tombstone => "tombstone",
            }),
        );
    }
}

/// A large payload that a data server has received.
#[derive(Debug)]
pub struct Upload {
    /// Where it is.
    pub address: Address,
    /// Who has it.
    pub node: NodeId,
    /// What it is there.
    pub received: Received,
}

impl DataServers {
    /// Writes a payload, or a tombstone without one, in one message. Durable
    /// when this returned `Ok`.
    ///
    /// # Errors
    /// [`DataServerError`]; see [`DataServerError::changed_nothing`].
    pub async fn write(
        &self,
        address: &Address,
        node: NodeId,
        write: &WriteRequest,
        payload: Bytes,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        let path = format!("/internal/v1/{}", object_path(&write.name));
        let mut request = request(Method::PUT, &path, Some(node));
        write.fill(request.headers_mut());
        *request.body_mut() = ClientBody::full(payload);
        self.json(address, request, limit).await
    }

    /// Sends a large payload, which gets its name and version by
    /// [`Self::commit`]. Dropping the future makes the data server drop what it
    /// has received.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn stage<S>(
        &self,
        address: &Address,
        node: NodeId,
        size_bytes: Option<u64>,
        payload: S,
    ) -> Result<Upload, DataServerError>
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    {
        let mut request = request(Method::POST, "/internal/v1/staging", Some(node));
        *request.body_mut() = ClientBody::stream(payload, size_bytes);
        // The body may take hours; each side drops the connection when nothing
        // moves for the body timeout.
        let response = self.accepted(address, request, None).await?;
        let received: Received = self.small_json(response).await?;
        Ok(Upload { address: address.clone(), node, received })
    }

    /// Begins to read what a data server has received. `limit` is for the head of
    /// the answer. The bytes are not verified on the way: who takes them compares
    /// the digest.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn read_staged(
        &self,
        upload: &Upload,
        limit: Duration,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>, DataServerError>
    {
        let path = staged_path(upload.received.staging);
        let request = request(Method::GET, &path, Some(upload.node));
        let response = self.accepted(&upload.address, request, Some(limit)).await?;
        let frames = BodyDataStream::new(response.into_body());
        Ok(frames.map_err(std::io::Error::other))
    }

    /// Has a data server not give up a staged payload yet. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn keep_staged(
        &self,
        upload: &Upload,
        limit: Duration,
    ) -> Result<(), DataServerError> {
        let path = staged_path(upload.received.staging);
        let request = request(Method::POST, &path, Some(upload.node));
        self.accepted(&upload.address, request, Some(limit)).await.map(|_| ())
    }

    /// Gives a staged payload its name and version. Durable when this returned
    /// `Ok`.
    ///
    /// # Errors
    /// [`DataServerError`]; see [`DataServerError::changed_nothing`].
    pub async fn commit(
        &self,
        upload: &Upload,
        write: &WriteRequest,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        let staging = upload.received.staging;
        let path = format!("/internal/v1/staging/{staging}/{}", object_path(&write.name));
        let mut request = request(Method::PUT, &path, Some(upload.node));
        write.fill(request.headers_mut());
        self.json(&upload.address, request, limit).await
    }

    /// Takes a staged payload back. The data server would do so by itself after
    /// a while.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn abandon(&self, upload: &Upload, limit: Duration) -> Result<(), DataServerError> {
        self.drop_staging(&upload.address, upload.node, upload.received.staging, limit).await
    }

    async fn drop_staging(
        &self,
        address: &Address,
        node: NodeId,
        staging: StagingId,
        limit: Duration,
    ) -> Result<(), DataServerError> {
        let path = staged_path(staging);
        let request = request(Method::DELETE, &path, Some(node));
        self.accepted(address, request, Some(limit)).await.map(|_| ())
    }

    /// Makes a data server forget exactly this version, because a newer one is
    /// durable elsewhere. It keeps anything else.
    ///
    /// # Errors
    /// [`DataServerError`]; it may have been forgotten all the same.
    pub async fn forget(
        &self,
        address: &Address,
        node: NodeId,
        name: &ObjectName,
        version: Version,
        limit: Duration,
    ) -> Result<(), DataServerError> {
        let path = format!("/internal/v1/{}", object_path(name));
        let mut request = request(Method::DELETE, &path, Some(node));
        let version = HeaderValue::try_from(version.to_string()).expect("hexadecimal digits");
        request.headers_mut().insert(HEADER_VERSION, version);
        self.accepted(address, request, Some(limit)).await.map(|_| ())
    }

    /// Stores an object on a data server written for the seed, by its own path.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn put_guest<S>(
        &self,
        address: &Address,
        key: &Key,
        size_bytes: Option<u64>,
        payload: S,
    ) -> Result<(), DataServerError>
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    {
        let mut request: Request<ClientBody> =
            request(Method::PUT, &format!("/objects/{}", key.to_seed_path()), None);
        *request.body_mut() = ClientBody::stream(payload, size_bytes);
        self.accepted(address, request, None).await.map(|_| ())
    }
}

fn staged_path(staging: StagingId) -> String {
    format!("/internal/v1/staging/{staging}")
}
