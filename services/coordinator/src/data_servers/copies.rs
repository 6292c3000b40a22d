//! Copies that data servers make of each other's objects.

use std::time::Duration;

use holdfast_core::node::{Address, NodeId};
use holdfast_core::wire::transfer::{
    CollectAnswer, CollectRequest, CopyRequest, PinAnswer, PinRequest, RepairHint, WriteAnswer,
};
use holdfast_http::client::ClientBody;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DataServerError, DataServers, request};

impl DataServers {
    /// Has `node` fetch a version from another member and keep it. Durable when
    /// this returned `Ok`. `limit` is for all of it, the transfer included.
    ///
    /// Dropping the future ends the transfer, unless it is complete: then the
    /// copy may be kept all the same.
    ///
    /// # Errors
    /// [`DataServerError`]; see [`DataServerError::changed_nothing`].
    pub async fn copy(
        &self,
        address: &Address,
        node: NodeId,
        copy: &CopyRequest,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        self.post(address, node, "/internal/v1/copies", copy, limit).await
    }

    /// Asks `node` to keep its copies, since the sender lets go of its own. What
    /// is not in the answer must not be relied on. Cancel safe: a pin that
    /// nobody knows of ends by itself.
    ///
    /// # Errors
    /// [`DataServerError`]; nothing may be relied on then.
    pub async fn pin(
        &self,
        address: &Address,
        node: NodeId,
        pin: &PinRequest,
        limit: Duration,
    ) -> Result<PinAnswer, DataServerError> {
        let answer: PinAnswer = self.post(address, node, "/internal/v1/pins", pin, limit).await?;
        if answer.node == node { Ok(answer) } else { Err(DataServerError::AnotherNode) }
    }

    /// Asks `node` to agree that tombstones may be forgotten, or to forget them.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn collect(
        &self,
        address: &Address,
        node: NodeId,
        request: &CollectRequest,
        limit: Duration,
    ) -> Result<CollectAnswer, DataServerError> {
        let path = "/internal/v1/collect";
        let answer: CollectAnswer = self.post(address, node, path, request, limit).await?;
        if answer.node == node { Ok(answer) } else { Err(DataServerError::AnotherNode) }
    }

    /// Has `node`, which holds them, look at names soon. What it has no room for
    /// it finds by itself, later. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn hint_repair(
        &self,
        address: &Address,
        node: NodeId,
        hint: &RepairHint,
        limit: Duration,
    ) -> Result<(), DataServerError> {
        let mut request = request(Method::POST, "/internal/v1/repair", Some(node));
        let body = serde_json::to_vec(hint)
            .map_err(|_| DataServerError::BadAnswer { what: "own request" })?;
        *request.body_mut() = ClientBody::full(body);
        self.accepted(address, request, Some(limit)).await.map(|_| ())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        address: &Address,
        node: NodeId,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, DataServerError> {
        let mut request = request(Method::POST, path, Some(node));
        let body = serde_json::to_vec(body)
            .map_err(|_| DataServerError::BadAnswer { what: "own request" })?;
        *request.body_mut() = ClientBody::full(body);
        self.json(address, request, limit).await
    }
}
