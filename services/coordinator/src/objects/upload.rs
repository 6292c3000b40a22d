//! A large payload on its way to all its owners at once.
//!
//! | module | does |
//! |---|---|
//! | here | who has received it, and whether that is enough |
//! | `pump` | passes its chunks on, and leaves behind who stands still |
//! | `progress` | whether what is passed on to others moves |
//! | `relay` | passes what some have received on to others, if too few did |
//! | `staged` | what was received, until it has its version |

mod progress;
mod pump;
mod relay;
mod staged;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use holdfast_core::node::NodeId;
use holdfast_core::object::Digest;
use tracing::{debug, warn};

use self::pump::Pump;
pub(super) use self::staged::Uploads;
use super::Objects;
use super::body::{self, Incoming};
use super::replicate::Recipient;
use crate::data_servers::{DataServerError, Upload};
use crate::error::ObjectError;

/// How long one data server may keep all of an upload waiting before it goes on
/// without it, if enough others keep up.
const STALL: Duration = Duration::from_secs(2);

/// The same, if too few others keep up, so that what those have received must be
/// passed on to somebody else afterwards: that costs more than waiting a little.
const LONG_STALL: Duration = Duration::from_secs(6);

/// How long data servers may take longer to say that they have all of it than
/// those that suffice.
const GRACE: Duration = Duration::from_secs(1);

/// How many data servers that count must receive a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    /// So many suffice.
    pub(super) quorum: usize,
    /// With fewer it cannot succeed: those that are missing up to the quorum would
    /// have nobody to take their place.
    pub(super) least: usize,
}

impl Needed {
    /// A write quorum, where so many others could take the place of who is lost.
    pub(super) fn new(quorum: usize, spare: usize) -> Self {
        Self { quorum: quorum.max(1), least: quorum.saturating_sub(spare).max(1) }
    }
}

impl Objects {
    /// Streams a payload to `recipients` and checks that all sides saw the same
    /// bytes. At least `needed.least` of those that count, for which the first of
    /// the pair is true, have it when this returned `Ok`.
    pub(super) async fn upload(
        &self,
        recipients: Vec<(bool, Recipient)>,
        needed: Needed,
        incoming: Incoming,
    ) -> Result<(Uploads, Digest), ObjectError> {
        let size_bytes = incoming.size_bytes;
        let limit = self.config.max_object_bytes;
        let (stream, outcome) = body::meter(self.runtime.clone(), incoming, limit);
        let counting = recipients.iter().filter(|(counts, _)| *counts).map(|(_, to)| to.member.id);
        let enough = Enough { counting: counting.collect(), needed };
        let mut pump = Pump::new(self.clone(), needed);
        let sending = recipients.iter().map(|(counts, to)| {
            let payload = pump.add(to.member.id, *counts);
            let (address, node) = (to.member.address.clone(), to.member.id);
            let data_servers = self.data_servers.clone();
            async move { (node, data_servers.stage(&address, node, size_bytes, payload).await) }
        });
        let sending: FuturesUnordered<_> = sending.collect();
        let uploaded = self.wait_for_enough(pump.run(Box::pin(stream)), sending, &enough).await;
        let metered = body::take_outcome(&outcome);
        if let Some(refused) = metered.refused {
            return Err(refused);
        }
        let (mut received, mut refusal) = (Vec::new(), None);
        for (node, upload) in uploaded {
            match upload {
                Ok(upload) => received.push((node, upload)),
                Err(error) => {
                    warn!(%node, %error, "a data server did not take a payload");
                    let full = error.is_no_space();
                    refusal =
                        Some(if full { ObjectError::NoSpace } else { ObjectError::WriteFailed });
                }
            }
        }
        // Whatever is not passed on below is dropped by the data servers later.
        let Some((size_bytes, digest)) = metered.complete else {
            return Err(refusal.unwrap_or(ObjectError::WriteFailed));
        };
        let mut uploads = Uploads::new(self.clone(), size_bytes, digest);
        for (node, upload) in received {
            uploads.add(node, upload);
        }
        for (_, to) in &recipients {
            if !uploads.has(to.member.id) {
                uploads.lose(to.member.id);
            }
        }
        if enough.count(uploads.nodes()) < needed.least {
            return Err(refusal.unwrap_or(ObjectError::WriteFailed));
        }
        Ok((uploads, digest))
    }

    /// Runs the pump and the uploads until all of them are over, or until enough
    /// have succeeded and the others had their time: one that hangs is left behind.
    async fn wait_for_enough<U: Future<Output = Uploaded>>(
        &self,
        pumping: impl Future<Output = ()>,
        mut uploads: FuturesUnordered<U>,
        enough: &Enough,
    ) -> Vec<Uploaded> {
        let mut pumping = std::pin::pin!(pumping);
        let mut patience = self.runtime.sleep(Duration::ZERO);
        let mut waits = Waits::Least;
        let mut is_pumped = false;
        let mut uploaded = Vec::new();
        while !is_pumped || !uploads.is_empty() {
            tokio::select! {
                biased;
                () = &mut pumping, if !is_pumped => is_pumped = true,
                Some(upload) = uploads.next() => uploaded.push(upload),
                () = &mut patience, if waits != Waits::Least => {
                    debug!(count = uploads.len(), "data servers that hang are left behind");
                    break;
                }
            }
            if !is_pumped {
                continue;
            }
            let good = uploaded.iter().filter(|(_, upload)| upload.is_ok());
            let count = enough.count(good.map(|(node, _)| node));
            if count >= enough.needed.quorum && waits != Waits::Rest {
                waits = Waits::Rest;
                patience = self.runtime.sleep(GRACE);
            } else if count >= enough.needed.least && waits == Waits::Least {
                waits = Waits::Quorum;
                patience = self.runtime.sleep(LONG_STALL);
            }
        }
        uploaded
    }
}

/// What an upload that was sent whole still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// For as many as it cannot do without.
    Least,
    /// For a quorum, for a while.
    Quorum,
    /// For the rest, for a shorter while.
    Rest,
}

/// How many must have a payload, and who of them counts.
struct Enough {
    counting: BTreeSet<NodeId>,
    needed: Needed,
}

impl Enough {
    fn count<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> usize {
        nodes.filter(|node| self.counting.contains(node)).count()
    }
}

/// What a data server said of what it received.
type Uploaded = (NodeId, Result<Upload, DataServerError>);
