//! How a service is told to stop, and in which order it does.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far the end of a process has come. Phases are only ever left for a
/// later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    Running,
    /// Unready, and each response asks for its connection to be closed, but
    /// requests are still taken: the rest of the cluster is being told.
    Leaving,
    /// Nothing new is taken; what is in flight finishes.
    Finishing,
    /// Everything is dropped at once. A process that is killed here must be
    /// as safe as one that loses power.
    Forced,
}

/// The phase of one process, cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A handle in [`Phase::Running`] that no signal moves.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)) }
    }

    /// A handle that the first SIGTERM or SIGINT moves to [`Phase::Leaving`]
    /// and the second to [`Phase::Forced`].
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub fn on_signals(runtime: &Runtime) -> io::Result<Self> {
        let shutdown = Self::new();
        let told = shutdown.clone();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        runtime.spawn("signals", async move {
            loop {
                let name = tokio::select! {
                    biased;
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                told.on_signal(name);
            }
        });
        Ok(shutdown)
    }

    fn on_signal(&self, name: &'static str) {
        if self.phase() == Phase::Running {
            tracing::info!(
                signal = name,
                "shutting down; a second signal ends the process at once"
            );
            self.begin();
        } else {
            tracing::warn!(signal = name, "second signal: ending at once");
            self.force();
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves to [`Phase::Leaving`], as a first signal does.
    pub fn begin(&self) {
        self.advance(Phase::Leaving);
    }

    /// Moves to [`Phase::Finishing`].
    pub fn finish(&self) {
        self.advance(Phase::Finishing);
    }

    /// Moves to [`Phase::Forced`], as a second signal does.
    pub fn force(&self) {
        self.advance(Phase::Forced);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Waits until `phase` or a later one is reached. Cancel safe.
    pub async fn wait_for(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // This handle keeps the sender, so the wait cannot fail.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}

/// How long each step of an ending may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTimes {
    /// How long requests are still taken after the last word was sent, so that
    /// load balancers and peers hear of it first.
    pub delay: Duration,
    /// How long requests in flight may then take.
    pub finish: Duration,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything in flight was finished.
    Clean,
    /// [`ShutdownTimes::finish`] passed first.
    Late,
    /// A second signal came.
    Forced,
}

/// How long the last word may take even without a delay.
const LEAST_LAST_WORD: Duration = Duration::from_secs(1);

/// Runs the end of a service in order: waits for [`Phase::Leaving`], runs
/// `last_word` (the heartbeat that says goodbye, cut off after
/// [`ShutdownTimes::delay`]), goes on taking requests for the delay, moves to
/// [`Phase::Finishing`], and waits for `work` to end.
///
/// Not cancel safe: dropped, the phase stays where it is.
pub async fn run_shutdown(
    runtime: &Runtime,
    shutdown: &Shutdown,
    times: ShutdownTimes,
    last_word: impl Future<Output = ()>,
    work: impl Future<Output = ()>,
) -> Ending {
    let orderly = async {
        shutdown.wait_for(Phase::Leaving).await;
        // A delay of nothing must not swallow the last word.
        let limit = times.delay.max(LEAST_LAST_WORD);
        if let Err(late) = runtime.timeout(limit, last_word).await {
            tracing::warn!(error = %late, "the last message to the cluster was not sent");
        }
        runtime.sleep(times.delay).await;
        shutdown.finish();
        match runtime.timeout(times.finish, work).await {
            Ok(()) => Ending::Clean,
            Err(_) => Ending::Late,
        }
    };
    tokio::select! {
        biased;
        () = shutdown.wait_for(Phase::Forced) => Ending::Forced,
        ending = orderly => ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    const TIMES: ShutdownTimes =
        ShutdownTimes { delay: Duration::from_millis(5), finish: Duration::from_millis(50) };

    #[tokio::test]
    async fn phases_only_go_forward() {
        let shutdown = Shutdown::new();
        shutdown.finish();
        shutdown.begin();
        assert_eq!(shutdown.phase(), Phase::Finishing);
        shutdown.wait_for(Phase::Leaving).await;
        shutdown.on_signal("SIGTERM");
        assert_eq!(shutdown.phase(), Phase::Forced);
    }

    #[tokio::test]
    async fn the_last_word_comes_before_the_finish() {
        let (runtime, shutdown) = (Runtime::real(), Shutdown::new());
        let said = AtomicU8::new(0);
        shutdown.begin();
        let last_word = async {
            assert_eq!(shutdown.phase(), Phase::Leaving);
            said.store(1, Ordering::Relaxed);
        };
        let work = async {
            assert_eq!(shutdown.phase(), Phase::Finishing);
            assert_eq!(said.load(Ordering::Relaxed), 1);
        };
        let ending = run_shutdown(&runtime, &shutdown, TIMES, last_word, work).await;
        assert_eq!(ending, Ending::Clean);
    }

    #[tokio::test]
    async fn neither_a_stuck_last_word_nor_stuck_work_holds_the_end_up() {
        let (runtime, shutdown) = (Runtime::real(), Shutdown::new());
        shutdown.begin();
        let never = std::future::pending;
        let ending = run_shutdown(&runtime, &shutdown, TIMES, never(), never()).await;
        assert_eq!(ending, Ending::Late);
    }

    #[tokio::test]
    async fn a_second_signal_ends_it_at_once() {
        let (runtime, shutdown) = (Runtime::real(), Shutdown::new());
        shutdown.on_signal("SIGINT");
        shutdown.on_signal("SIGINT");
        let hour = ShutdownTimes { delay: Duration::from_secs(3600), ..TIMES };
        let ending =
            run_shutdown(&runtime, &shutdown, hour, async {}, std::future::pending()).await;
        assert_eq!(ending, Ending::Forced);
    }
}
