use super::*;
use crate::test_support::{TempDir, WALL_MILLIS};

fn at_millis(millis: u64) -> Version {
    Version::from_parts(millis << 16, 3)
}

fn marked(directory: &TempDir) -> Option<Version> {
    let files = Runtime::real().files();
    let file = read_json::<FloorFile>(files.as_ref(), &directory.path().join(FLOOR_FILE));
    file.expect("sound").map(|file| file.mark)
}

async fn open(directory: &TempDir) -> Floor {
    Floor::open(&Runtime::real(), directory.path()).await.expect("sound")
}

#[tokio::test]
async fn the_floor_survives_a_restart_and_is_never_below_what_was_raised() {
    let directory = TempDir::new();
    let mut last = None;
    for run in 0..5 {
        let floor = open(&directory).await;
        assert!(floor.get() >= last, "run {run}");
        let version = at_millis(WALL_MILLIS + run * 7_000);
        floor.raise(version).await.expect("the disk works");
        assert!(floor.get() >= Some(version));
        assert!(marked(&directory) >= floor.get(), "what is told is durable");
        last = floor.get();
    }
}

#[tokio::test]
async fn a_volume_without_a_floor_has_none_and_tells_no_more_than_was_taken() {
    let directory = TempDir::new();
    let floor = open(&directory).await;
    assert_eq!(floor.get(), None);
    floor.raise(at_millis(WALL_MILLIS)).await.expect("the disk works");
    assert_eq!(floor.get(), Some(at_millis(WALL_MILLIS)), "not the mark");
    floor.raise(at_millis(5)).await.expect("the disk works");
    assert_eq!(floor.get(), Some(at_millis(WALL_MILLIS)), "it never falls");
}

#[tokio::test]
async fn most_versions_need_no_sync() {
    let directory = TempDir::new();
    let floor = open(&directory).await;
    let mut marks = std::collections::BTreeSet::new();
    for millis in (0..60_000).step_by(100) {
        floor.raise(at_millis(WALL_MILLIS + millis)).await.expect("the disk works");
        marks.insert(marked(&directory));
    }
    assert_eq!(marks.len(), 6, "one for each step of ten seconds");
}

#[tokio::test]
async fn what_was_promised_survives_a_restart_apart_from_what_was_taken() {
    let directory = TempDir::new();
    let [early, late] = [0, 60_000].map(|millis| at_millis(WALL_MILLIS + millis));
    open(&directory).await.raise(late).await.expect("the disk works");
    let floor = open(&directory).await;
    assert_eq!(floor.promised(), None, "it was only taken");
    floor.promise(early).await.expect("the disk works");
    let floor = open(&directory).await;
    assert!(floor.promised() >= Some(early) && floor.promised() < Some(late));
    assert!(floor.get() >= Some(late), "a promise does not lower the floor");
    floor.raise(at_millis(WALL_MILLIS + 90_000)).await.expect("the disk works");
    let promised = floor.promised();
    assert_eq!(open(&directory).await.promised(), promised, "kept when the floor is raised");
}

#[tokio::test]
async fn what_an_earlier_build_left_may_all_have_been_promised() {
    let directory = TempDir::new();
    let (files, path) = (Runtime::real().files(), directory.path().join(FLOOR_FILE));
    let file = files.open(&path, holdfast_runtime::OpenMode::CreateNew).expect("new");
    let mark = at_millis(WALL_MILLIS);
    file.write_all_at(format!("{{\"mark\":\"{mark}\"}}").as_bytes(), 0).expect("written");
    assert_eq!(open(&directory).await.promised(), Some(mark));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_was_told_that_it_is_raised_finds_it_durable() {
    let directory = Arc::new(TempDir::new());
    let (floor, runtime) = (open(&directory).await, Runtime::real());
    let mut tasks = Vec::new();
    for number in 0..64u64 {
        let (floor, directory) = (floor.clone(), Arc::clone(&directory));
        let version = at_millis(WALL_MILLIS + number * 37 % 64 * 3_000);
        tasks.push(runtime.spawn("raise", async move {
            floor.raise(version).await.expect("the disk works");
            assert!(marked(&directory) >= Some(version));
            assert!(floor.get() >= Some(version));
        }));
        // Those who give up must not spoil the file for the others.
        if number % 5 == 0
            && let Some(task) = tasks.last()
        {
            task.abort();
        }
    }
    for task in &mut tasks {
        task.finished().await;
    }
    let floor = floor.get();
    assert!(floor > Some(at_millis(WALL_MILLIS)), "most were raised");
    assert!(open(&directory).await.get() >= floor);
}

#[tokio::test]
async fn a_damaged_file_is_neither_used_nor_replaced() {
    let directory = TempDir::new();
    let (files, path) = (Runtime::real().files(), directory.path().join(FLOOR_FILE));
    let file = files.open(&path, holdfast_runtime::OpenMode::CreateNew).expect("new");
    file.write_all_at(b"{\"mark\":", 0).expect("written");
    for _ in 0..2 {
        let opened = Floor::open(&Runtime::real(), directory.path()).await;
        assert!(matches!(opened, Err(IdentityError::Damaged { .. })), "{opened:?}");
    }
}

#[test]
fn restarts_do_not_push_the_mark_away_from_the_clock() {
    let mut version = at_millis(WALL_MILLIS);
    for _ in 0..10_000 {
        let mark = mark_for(version, WALL_MILLIS);
        assert!(mark >= version);
        version = Version::from_parts(mark.clock() + 1, 1);
    }
    let ahead_millis = version.unix_millis() - WALL_MILLIS;
    assert!(ahead_millis < 2 * MOST_AHEAD_MILLIS, "{ahead_millis}");
    let highest = Version::from_parts(u64::MAX, u64::MAX);
    assert_eq!(mark_for(highest, WALL_MILLIS), highest);
}
