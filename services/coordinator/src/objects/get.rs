//! GET: the newest content of a name.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use holdfast_core::locate::{Replica, Verdict};
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Kind, Stat};
use holdfast_http::client::ResponseBody;
use http_body_util::BodyExt;
use tracing::{debug, warn};

use super::Objects;
use crate::data_servers::{DataServerError, GuestRead};
use crate::error::ObjectError;

/// How often a read is begun anew: when what was located is gone before it is
/// read, and when a connection breaks in the middle.
const ATTEMPTS: u32 = 3;

/// Bytes on their way to the client. An error means that the object could not
/// be read to its end; the connection must then be reset.
pub type ReadStream = BoxStream<'static, io::Result<Bytes>>;

/// The newest content of a name.
#[derive(Debug)]
pub enum Fetched {
    /// A member has it.
    Member(Replica),
    /// Only a data server written for the seed has it.
    Guest(GuestRead),
}

impl Objects {
    /// Finds the newest content of a name.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`] when there certainly is none,
    /// [`ObjectError::Incomplete`] when that cannot be told.
    pub async fn find(&self, name: &ObjectName) -> Result<Fetched, ObjectError> {
        let located = self.locate(name).await?;
        match located.verdict() {
            Verdict::Found(replica) => {
                self.forget_superseded(name, &located);
                Ok(Fetched::Member(replica.clone()))
            }
            // A tombstone is younger than what a guest may still have.
            Verdict::Absent if located.newest().is_some() => {
                self.forget_superseded(name, &located);
                Err(ObjectError::NotFound)
            }
            Verdict::Absent => match self.read_guest(name).await? {
                Some(guest) => Ok(Fetched::Guest(guest)),
                None => Err(ObjectError::NotFound),
            },
            Verdict::Incomplete(silent) => {
                let founded = self.cluster.snapshot().view.founded;
                if !founded && let Some(guest) = self.read_guest(name).await? {
                    return Ok(Fetched::Guest(guest));
                }
                if silent.is_empty() {
                    return Err(ObjectError::NoDataServers);
                }
                Err(ObjectError::Incomplete { silent: silent.to_vec() })
            }
        }
    }

    /// Reads what [`Self::find`] found: all of it, or a range that lies within
    /// it. `None` when it is not there any more, or its member is not: find it
    /// again.
    ///
    /// # Errors
    /// [`ObjectError::ReadFailed`], [`ObjectError::Damaged`].
    pub async fn read(
        &self,
        name: &ObjectName,
        replica: &Replica,
        range: Option<Range<u64>>,
    ) -> Result<Option<ReadStream>, ObjectError> {
        let range = range.unwrap_or(0..replica.stat.size_bytes);
        if range.is_empty() {
            return Ok(Some(stream::empty().boxed()));
        }
        match self.open(name, replica, range.clone()).await {
            Ok(body) => Ok(Some(self.read_on(name, replica, range, body))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(DataServerError::Refused { code, .. }) if code == "damaged" => {
                Err(ObjectError::Damaged)
            }
            // The connection broke, or the member did: whether it still has the
            // object, or is still there, only a new locate tells.
            Err(DataServerError::Client(error)) => {
                debug!(node = %replica.node, %name, %error, "a read did not begin");
                Ok(None)
            }
            Err(error) => {
                warn!(node = %replica.node, %name, %error, "an object could not be read");
                Err(ObjectError::ReadFailed)
            }
        }
    }

    async fn open(
        &self,
        name: &ObjectName,
        replica: &Replica,
        range: Range<u64>,
    ) -> Result<ResponseBody, DataServerError> {
        let Replica { node, address, stat } = replica;
        let whole = range == (0..stat.size_bytes);
        let range = (!whole).then_some(range);
        let limit = self.config.read_timeout;
        let start =
            self.data_servers.read(address, *node, name, stat.version, range, limit).await?;
        if same_content(&start.stat, stat) {
            Ok(start.body)
        } else {
            Err(DataServerError::BadAnswer { what: "the stat header" })
        }
    }

    /// Passes a body on; when it breaks, goes on at the same byte of the same
    /// version.
    fn read_on(
        &self,
        name: &ObjectName,
        replica: &Replica,
        range: Range<u64>,
        body: ResponseBody,
    ) -> ReadStream {
        let reading = Reading {
            objects: self.clone(),
            name: name.clone(),
            replica: replica.clone(),
            rest: range,
            body,
            attempts: ATTEMPTS,
        };
        let stream = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        });
        stream.boxed()
    }
}

fn same_content(found: &Stat, expected: &Stat) -> bool {
    found.kind == Kind::Object
        && found.version == expected.version
        && found.size_bytes == expected.size_bytes
        && found.digest == expected.digest
}

struct Reading {
    objects: Objects,
    name: ObjectName,
    replica: Replica,
    /// What has not been passed on yet.
    rest: Range<u64>,
    body: ResponseBody,
    attempts: u32,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.rest.is_empty() {
            match self.frame().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    let left = usize::try_from(self.rest.end - self.rest.start);
                    let chunk = chunk.slice(..chunk.len().min(left.unwrap_or(usize::MAX)));
                    self.rest.start += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Err(cause) => self.go_on(&cause).await?,
            }
        }
        Ok(None)
    }

    async fn frame(&mut self) -> Result<Bytes, String> {
        let limit = self.objects.config.body_timeout;
        match self.objects.runtime.timeout(limit, self.body.frame()).await {
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) => Err("the answer ended early".to_owned()),
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }

    async fn go_on(&mut self, cause: &str) -> io::Result<()> {
        let continued = &self.objects.metrics.reads_continued;
        while self.attempts > 0 {
            self.attempts -= 1;
            debug!(node = %self.replica.node, %cause, offset = self.rest.start, "a read broke");
            match self.objects.open(&self.name, &self.replica, self.rest.clone()).await {
                Ok(body) => {
                    self.body = body;
                    continued.with_label_values(&["ok"]).inc();
                    return Ok(());
                }
                Err(error) if error.is_not_found() => break,
                Err(_) => {
                    let pause =
                        self.objects.runtime.jittered(std::time::Duration::from_millis(200));
                    self.objects.runtime.sleep(pause).await;
                }
            }
        }
        continued.with_label_values(&["error"]).inc();
        let (node, name) = (self.replica.node, &self.name);
        warn!(%node, %name, offset = self.rest.start, %cause, "a read could not be continued");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause.to_owned()))
    }
}
