//! Pages of a data server's volume.

use std::time::Duration;

use holdfast_core::node::{Address, NodeId};
use holdfast_core::wire::list::{ListAnswer, ListRequest, MAX_LIST_ANSWER_BYTES};
use holdfast_http::client::ClientBody;
use http::Method;

use super::{DataServerError, DataServers, request};

impl DataServers {
    /// Asks `node` for a part of a bucket, in order. Cancel safe.
    ///
    /// # Errors
    /// [`DataServerError`].
    pub async fn list(
        &self,
        address: &Address,
        node: NodeId,
        list: &ListRequest,
        limit: Duration,
    ) -> Result<ListAnswer, DataServerError> {
        let mut request = request(Method::POST, "/internal/v1/list", Some(node));
        let body = serde_json::to_vec(list)
            .map_err(|_| DataServerError::BadAnswer { what: "own request" })?;
        *request.body_mut() = ClientBody::full(body);
        let most = MAX_LIST_ANSWER_BYTES as u64;
        let answer: ListAnswer = self.bounded_json(address, request, most, limit).await?;
        if answer.node == node { Ok(answer) } else { Err(DataServerError::AnotherNode) }
    }
}
