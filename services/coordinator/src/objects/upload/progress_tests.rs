use futures_util::poll;
use tokio::sync::mpsc;

use super::*;

const BYTES: u64 = LEAST_BYTES * 2 + 100;

fn chunk(bytes: u64) -> io::Result<Bytes> {
    Ok(Bytes::from(vec![0; usize::try_from(bytes).expect("a few")]))
}

/// A body that gives what is sent.
fn watched() -> (Progress, mpsc::UnboundedSender<io::Result<Bytes>>, impl Stream + Unpin) {
    let progress = Progress::new(BYTES);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let body = stream::poll_fn(move |context| receiver.poll_recv(context));
    let body = Box::pin(progress.watch(body));
    (progress, sender, body)
}

#[tokio::test]
async fn it_moves_while_enough_of_it_passes() {
    let (progress, sender, mut body) = watched();
    assert_eq!(progress.passed_since(0), None, "nothing has passed");
    for (bytes, seen, passed) in [
        (LEAST_BYTES - 1, 0, None),
        (1, 0, Some(LEAST_BYTES)),
        (LEAST_BYTES, LEAST_BYTES, Some(LEAST_BYTES * 2)),
        (99, LEAST_BYTES * 2, None),
        // The rest is enough, however little it is.
        (1, LEAST_BYTES * 2, Some(BYTES)),
    ] {
        sender.send(chunk(bytes)).expect("the body is there");
        assert!(body.next().await.is_some());
        assert_eq!(progress.passed_since(seen), passed, "{bytes} more");
    }
    assert_eq!(progress.passed_since(BYTES), None, "the answer lacks for too long");
}

#[tokio::test]
async fn who_is_waited_for_is_known() {
    let (progress, sender, mut body) = watched();
    assert!(!progress.awaits_source(), "nobody has asked for anything yet");
    assert!(poll!(body.next()).is_pending());
    assert!(progress.awaits_source(), "it was asked and gave nothing");
    sender.send(chunk(1)).expect("the body is there");
    assert!(body.next().await.is_some());
    assert!(!progress.awaits_source() && !progress.is_broken(), "nobody asks for more");
    sender.send(Err(io::Error::other("broken"))).expect("the body is there");
    assert!(body.next().await.is_some());
    assert!(progress.is_broken());
    let (progress, sender, mut body) = watched();
    drop(sender);
    assert!(body.next().await.is_none());
    assert!(!progress.awaits_source() && !progress.is_broken(), "all of it has passed");
}
