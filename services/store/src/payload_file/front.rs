//! What is written of a payload whose file is not complete yet.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use holdfast_runtime::File;

use crate::disk::{Disk, io_error};
use crate::{ByteStream, StoreError};

/// What is read at once.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The first `bytes` of a file, as they are there; what it lacks of them is left
/// out. Each piece is read when it is asked for, also when the file has lost its
/// name by then.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) async fn read_front(
    disk: Arc<Disk>,
    path: PathBuf,
    bytes: u64,
) -> Result<ByteStream, StoreError> {
    let opened = disk.run(move |disk| Ok((disk.open(&path)?, path))).await?;
    let opened: Arc<(Box<dyn File>, PathBuf)> = Arc::new(opened);
    let pieces = stream::try_unfold(0, move |at| {
        let (disk, opened) = (Arc::clone(&disk), Arc::clone(&opened));
        async move {
            let wanted = usize::try_from(PIECE_BYTES.min(bytes - at)).unwrap_or_default();
            let read = disk.run(move |_| {
                let (file, path) = &*opened;
                let mut piece = vec![0; wanted];
                let count = file.read_at(&mut piece, at).map_err(io_error("read", path))?;
                piece.truncate(count);
                Ok(Bytes::from(piece))
            });
            let piece = read.await?;
            let next = at + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((piece, next)))
        }
    });
    Ok(pieces.boxed())
}
