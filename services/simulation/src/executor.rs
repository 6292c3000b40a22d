//! Runs tasks in virtual time.
//!
//! Time stands still while any task can go on; then it jumps to the next timer.
//! Which of the tasks that can go on is next, the seed decides, and not the
//! order in which they were woken: libraries wake those that wait for the same
//! thing in an order that is random or depends on addresses. So a seed always
//! gives the same run, and another seed another order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use holdfast_runtime::{BoxFuture, Task};
use tokio::sync::watch;

use crate::random::mix;

/// One run of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// Polls without time going on after which tasks are taken to go in circles.
const MOST_POLLS_AT_ONCE: u64 = 5_000_000;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    tasks: BTreeMap<u64, Slot>,
    next_task: u64,
    /// Priority and number of each task that can go on.
    ready: BTreeSet<(u64, u64)>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    paused: BTreeMap<ProcessId, BTreeSet<u64>>,
    dead: BTreeSet<ProcessId>,
    polls: u64,
}

struct Slot {
    process: ProcessId,
    /// Taken out while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    polls: u64,
    is_ready: bool,
    /// Told by dropping, too.
    _done: watch::Sender<bool>,
}

struct TaskWaker {
    shared: Weak<Shared>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.state().make_ready(shared.seed, self.task);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_ready(&mut self, seed: u64, task: u64) {
        let Some(slot) = self.tasks.get_mut(&task).filter(|slot| !slot.is_ready) else { return };
        slot.is_ready = true;
        match self.paused.get_mut(&slot.process) {
            Some(held) => {
                held.insert(task);
            }
            None => {
                self.ready.insert((mix(seed ^ task << 32, slot.polls), task));
            }
        }
    }

    /// Takes the next task that can go on.
    fn take(&mut self) -> Option<(u64, ProcessId, BoxFuture<'static, ()>, Waker)> {
        loop {
            let (_, task) = self.ready.pop_first()?;
            let Some(slot) = self.tasks.get_mut(&task) else { continue };
            let Some(future) = slot.future.take() else { continue };
            slot.is_ready = false;
            slot.polls += 1;
            self.polls += 1;
            return Some((task, slot.process, future, slot.waker.clone()));
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Nothing runs yet, and it is no time at all.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { shared: Arc::new(Shared { seed, state: Mutex::default() }) }
    }

    /// The time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.state().now
    }

    /// Waits for at least `duration`.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(duration))
    }

    /// Waits until it is `deadline`.
    #[must_use]
    pub fn sleep_until(&self, deadline: Duration) -> Sleep {
        Sleep { executor: self.clone(), deadline, timer: None }
    }

    /// Runs a task in a process. In one that is dead, nothing runs.
    pub fn spawn(&self, process: ProcessId, future: BoxFuture<'static, ()>) -> Task {
        let (done, finished) = watch::channel(false);
        let mut state = self.shared.state();
        let task = state.next_task;
        state.next_task += 1;
        if state.dead.contains(&process) {
            drop(state);
            drop((future, done));
            return Task::new(|| {}, finished);
        }
        let shared = Arc::downgrade(&self.shared);
        let waker = Waker::from(Arc::new(TaskWaker { shared: shared.clone(), task }));
        let future = Some(future);
        let slot = Slot { process, future, waker, polls: 0, is_ready: false, _done: done };
        state.tasks.insert(task, slot);
        state.make_ready(self.shared.seed, task);
        drop(state);
        let abort = move || {
            if let Some(shared) = shared.upgrade() {
                // What it holds is dropped after the lock.
                let ended = shared.state().tasks.remove(&task);
                drop(ended);
            }
        };
        Task::new(abort, finished)
    }

    /// Ends all tasks of a process at once, and for ever.
    pub fn kill(&self, process: ProcessId) {
        let mut state = self.shared.state();
        state.dead.insert(process);
        state.paused.remove(&process);
        let of_process = |(task, slot): (&u64, &Slot)| (slot.process == process).then_some(*task);
        let tasks: Vec<u64> = state.tasks.iter().filter_map(of_process).collect();
        let ended: Vec<Option<Slot>> = tasks.iter().map(|task| state.tasks.remove(task)).collect();
        drop(state);
        drop(ended);
    }

    /// No task of the process goes on until [`Self::resume`].
    pub fn pause(&self, process: ProcessId) {
        let mut state = self.shared.state();
        let ready: Vec<(u64, u64)> = state.ready.iter().copied().collect();
        let of_process = |(_, task): &(u64, u64)| {
            state.tasks.get(task).is_some_and(|slot| slot.process == process)
        };
        let held: Vec<(u64, u64)> = ready.into_iter().filter(of_process).collect();
        for one in &held {
            state.ready.remove(one);
        }
        state.paused.insert(process, held.into_iter().map(|(_, task)| task).collect());
    }

    /// Lets a paused process go on.
    pub fn resume(&self, process: ProcessId) {
        let mut state = self.shared.state();
        for task in state.paused.remove(&process).unwrap_or_default() {
            if let Some(slot) = state.tasks.get_mut(&task) {
                slot.is_ready = false;
            }
            state.make_ready(self.shared.seed, task);
        }
    }

    /// Runs everything until `main` has ended, as a task of `process`; gives
    /// its result and the number of steps. All tasks end with it.
    ///
    /// # Panics
    /// When a task panics, when nothing can ever go on, and when tasks go in
    /// circles.
    pub fn run<T: Send + 'static>(
        &self,
        process: ProcessId,
        main: impl Future<Output = T> + Send + 'static,
    ) -> (T, u64) {
        let result = Arc::new(Mutex::new(None));
        let put = Arc::clone(&result);
        let main = async move {
            let value = main.await;
            *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        };
        let _task = self.spawn(process, Box::pin(main));
        let (mut at, mut polls) = (Duration::ZERO, 0);
        loop {
            self.step();
            let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(value) = value {
                let steps = self.shared.state().polls;
                self.end();
                return (value, steps);
            }
            let state = self.shared.state();
            if state.now > at {
                (at, polls) = (state.now, state.polls);
            }
            assert!(state.polls - polls < MOST_POLLS_AT_ONCE, "tasks go in circles at {at:?}");
        }
    }

    /// Polls one task, or lets time go on.
    fn step(&self) {
        let next = self.shared.state().take();
        let Some((task, process, mut future, waker)) = next else { return self.go_on() };
        CURRENT.set((process, self.now()));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.shared.state();
        match (polled, state.tasks.get_mut(&task)) {
            (Poll::Pending, Some(slot)) => slot.future = Some(future),
            (_, slot) => {
                let ended = slot.is_some().then(|| state.tasks.remove(&task));
                drop(state);
                drop((future, ended));
            }
        }
    }

    fn go_on(&self) {
        let mut state = self.shared.state();
        let Some((deadline, _)) = state.timers.keys().next().copied() else {
            drop(state);
            panic!("nothing can ever go on");
        };
        state.now = state.now.max(deadline);
        let later = state.timers.split_off(&(deadline, u64::MAX));
        let due = std::mem::replace(&mut state.timers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
    }

    fn end(&self) {
        // What is dropped may end others.
        loop {
            let mut state = self.shared.state();
            let tasks = std::mem::take(&mut state.tasks);
            state.ready.clear();
            state.timers.clear();
            drop(state);
            if tasks.is_empty() {
                return;
            }
        }
    }
}

thread_local! {
    static CURRENT: std::cell::Cell<(ProcessId, Duration)> =
        const { std::cell::Cell::new((ProcessId(0), Duration::ZERO)) };
}

/// Which process runs on this thread now, and what time it is.
#[must_use]
pub fn current() -> (ProcessId, Duration) {
    CURRENT.get()
}

/// See [`Executor::sleep`].
#[derive(Debug)]
pub struct Sleep {
    executor: Executor,
    deadline: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.executor.shared);
        let mut state = shared.state();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let timer = *self.timer.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.deadline, timer), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = self.executor.shared.state().timers.remove(&(self.deadline, timer));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: ProcessId = ProcessId(1);
    const OTHER: ProcessId = ProcessId(2);

    #[test]
    fn time_jumps_and_a_paused_process_finds_it_gone() {
        let executor = Executor::new(1);
        let inner = executor.clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        executor.run(MAIN, async move {
            let (clock, told) = (inner.clone(), Arc::clone(&told));
            let task = inner.spawn(
                OTHER,
                Box::pin(async move {
                    loop {
                        clock.sleep(Duration::from_secs(1)).await;
                        told.lock().expect("one thread").push(clock.now().as_secs());
                    }
                }),
            );
            inner.sleep(Duration::from_millis(2_500)).await;
            inner.pause(OTHER);
            inner.sleep(Duration::from_secs(10)).await;
            inner.resume(OTHER);
            inner.sleep(Duration::from_millis(1_500)).await;
            inner.kill(OTHER);
            inner.sleep(Duration::from_secs(5)).await;
            drop(task);
        });
        assert_eq!(*seen.lock().expect("one thread"), [1, 2, 12, 13]);
    }

    #[test]
    fn nothing_runs_in_a_dead_process() {
        let executor = Executor::new(1);
        let inner = executor.clone();
        executor.run(MAIN, async move {
            inner.kill(OTHER);
            let mut task = inner.spawn(OTHER, Box::pin(async { panic!("dead") }));
            task.finished().await;
        });
    }
}
