//! Runs a data server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bus::Topic;
use holdfast_coordinator::admin::{self, Operators};
use holdfast_coordinator::assembly::{Coordinator, OwnMembership};
use holdfast_coordinator::service::{
    BusConnection, Ports, Servers, Sockets, StartError, end, open_admin_port,
};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::Store;
use holdfast_telemetry::metrics::Metrics;
use holdfast_telemetry::shutdown::Shutdown;
use http::StatusCode;
use tokio::sync::oneshot;
use tracing::info;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::admission::Admission;
use crate::config::DataServerConfig;
use crate::copies::{Copier, CopierParts};
use crate::floor::Floor;
use crate::gate::{Gate, GateParts};
use crate::handlers::Internal;
use crate::health::{Opening, Readiness};
use crate::heartbeat::Heart;
use crate::identity::{Identity, VolumeRoster};
use crate::list::{Lister, ListerParts};
use crate::locate::Answerer;
use crate::metrics::DataServerMetrics;
use crate::rebirth;
use crate::repair::hints::Hints;
use crate::repair::metrics::RepairMetrics;
use crate::repair::pacer::Activity;
use crate::repair::{self, RepairParts};
use crate::report::{Own, Reporter, ReporterParts};
use crate::retirement::Retirement;
use crate::routes;
use crate::scrub::{self, ScrubHandle, ScrubParts};
use crate::staging::StagingTable;
use crate::steward::Steward;
pub use crate::volume::Volume;

/// What a data server listens to: heartbeats too, since data servers keep the
/// roster.
pub const TOPICS: [Topic; 3] = Topic::ALL;

/// How often the gauges of the volume are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is checked whether a sync has failed.
const POISON_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a data server until the end of `shutdown`. `listening` is told where,
/// once it accepts connections.
///
/// # Errors
/// [`StartError`]; once it listens, only `shutdown` ends it.
pub async fn run(
    runtime: Runtime,
    config: DataServerConfig,
    metrics: Metrics,
    connection: BusConnection,
    shutdown: Shutdown,
    listening: oneshot::Sender<Ports>,
) -> Result<(), StartError> {
    run_with(runtime, config, metrics, connection, shutdown, listening, Volume::Log).await
}

/// [`run`], on a volume of whichever kind.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    runtime: Runtime,
    config: DataServerConfig,
    metrics: Metrics,
    connection: BusConnection,
    shutdown: Shutdown,
    listening: oneshot::Sender<Ports>,
    volume: Volume,
) -> Result<(), StartError> {
    let settings = &config.common;
    let opening = Arc::new(Opening::default());
    let admin =
        open_admin_port(&runtime, settings, &metrics, Arc::clone(&opening) as _, &shutdown).await?;
    let set_aside = rebirth::set_aside(&runtime, &config.volume.storage_root)
        .await
        .map_err(|error| StartError::Volume(Box::new(error)))?;
    if let Some(retired) = set_aside {
        info!(%retired, "the member of this volume has retired; its records are set aside, and the volume is that of a new member");
    }
    let store = volume.open(&runtime, &config.volume, &metrics, opening).await?;
    let identity = Identity::open(&runtime, &config.volume.storage_root)
        .await
        .map_err(|error| StartError::Volume(Box::new(error)))?;
    let floor = Floor::open(&runtime, &config.volume.storage_root)
        .await
        .map_err(|error| StartError::Volume(Box::new(error)))?;
    let sockets = Sockets::bind(&runtime, settings, admin).await?;
    let ports = sockets.ports.clone();
    let own = describe_own(&config, &identity, store.as_ref(), &ports).await?;
    let counts = DataServerMetrics::new(&metrics)?;
    let repair_counts = RepairMetrics::new(&metrics)?;
    let BusConnection { bus, inbox } = connection;
    let keeper = VolumeRoster::new(runtime.clone(), config.volume.storage_root.clone());
    let membership =
        OwnMembership { node: own.node, roster: identity.roster, keeper: Arc::new(keeper) };
    let coordinator = Coordinator::start(
        &runtime,
        settings,
        &metrics,
        &bus,
        inbox.api_servers,
        inbox.replies,
        Some(membership),
    )?;
    let cluster = coordinator.cluster.clone();
    let reporter = Arc::new(Reporter::new(ReporterParts {
        runtime: runtime.clone(),
        own: own.clone(),
        cluster: cluster.clone(),
        store: Arc::clone(&store),
        floor: floor.clone(),
        reserve_bytes: config.volume.reserve_bytes,
        wanted: config.copies,
        missed_after: config.repair.delay,
    }));
    let gate = Gate::new(GateParts {
        runtime: runtime.clone(),
        store: Arc::clone(&store),
        generation: own.generation,
        heartbeat_interval: settings.heartbeat_interval,
        floor,
        metrics: counts.clone(),
    });
    let answerer = Answerer::new(
        runtime.clone(),
        own.clone(),
        Arc::clone(&store),
        gate.clone(),
        cluster.clone(),
        Arc::clone(&bus),
        counts.clone(),
    );
    let lister = Lister::new(ListerParts {
        runtime: runtime.clone(),
        own: own.clone(),
        store: Arc::clone(&store),
        gate: gate.clone(),
        cluster: cluster.clone(),
        late: counts.locates_late.clone(),
    });
    let copier = Copier::new(CopierParts {
        store: Arc::clone(&store),
        gate: gate.clone(),
        cluster: cluster.clone(),
        data_servers: coordinator.data_servers.clone(),
        reporter: Arc::clone(&reporter),
        objects: Some(coordinator.objects.clone()),
        metrics: counts.clone(),
    });
    let staging = StagingTable::new(runtime.clone(), counts.staged.clone());
    let (hints, activity) = (Hints::new(repair_counts.clone()), Activity::new());
    let internal = Internal {
        runtime: runtime.clone(),
        store: Arc::clone(&store),
        gate: gate.clone(),
        copier,
        cluster: cluster.clone(),
        reporter: Arc::clone(&reporter),
        answerer: answerer.clone(),
        lister,
        staging: staging.clone(),
        hints: hints.clone(),
        activity: activity.clone(),
    };
    let operators = coordinator.operators(&runtime, settings);
    let (scrub, scrub_task) = scrub::start(ScrubParts {
        runtime: runtime.clone(),
        store: Arc::clone(&store),
        root: config.volume.storage_root.clone(),
        interval: config.repair.scrub_interval,
        rate_bytes: config.repair.rate_bytes,
        hints: hints.clone(),
        metrics: repair_counts.clone(),
    });
    let servers = Servers {
        public: routes::routes(&internal, &coordinator.objects),
        route_of: routes::template,
        untimed: &routes::UNTIMED,
        admin: admin_routes(operators.clone(), scrub),
        health: Arc::new(Readiness {
            cluster: cluster.clone(),
            own: own.clone(),
            store: Arc::clone(&store),
            shutdown: shutdown.clone(),
        }),
        metrics,
    };
    let (public, _admin) = servers.start(&runtime, settings, sockets, &shutdown)?;
    let (address, admin) = (&ports.address, &ports.admin);
    info!(%address, %admin, node = %own.node, generation = own.generation.0, "data server is listening");
    let heart = Heart::new(
        runtime.clone(),
        settings.heartbeat_interval,
        Arc::clone(&reporter),
        cluster.clone(),
        Arc::clone(&bus),
        counts.clone(),
    );
    let repair = RepairParts {
        runtime: runtime.clone(),
        settings: config.repair.clone(),
        store: Arc::clone(&store),
        gate: gate.clone(),
        cluster: cluster.clone(),
        objects: coordinator.objects.clone(),
        data_servers: coordinator.data_servers.clone(),
        reporter,
        activity,
        hints,
        metrics: repair_counts,
        heartbeat_interval: settings.heartbeat_interval,
    };
    let mut tasks = vec![
        heart.start(),
        staging.start_sweeper(),
        gate.start_sweeper(),
        repair::start(repair),
        scrub_task,
        counts.watch_volume(&runtime, Arc::clone(&store), GAUGE_INTERVAL),
    ];
    tasks.extend(answerer.start(inbox.locate, inbox.data_servers));
    let conflict = Arc::new(AtomicBool::new(false));
    let is_retired = Arc::new(AtomicBool::new(false));
    let steward = Steward {
        runtime: runtime.clone(),
        own: own.node,
        changer: operators.changer.clone(),
        delay: config.repair.delay,
        heartbeat_interval: settings.heartbeat_interval,
        window: gate.window(),
    };
    let retirement = Retirement {
        runtime: runtime.clone(),
        own: own.node,
        store: Arc::clone(&store),
        changer: operators.changer,
        window: gate.window(),
        heartbeat_interval: settings.heartbeat_interval,
        shutdown: shutdown.clone(),
        is_retired: Arc::clone(&is_retired),
    };
    tasks.extend([steward.start(), retirement.start()]);
    let admission = Admission {
        runtime: runtime.clone(),
        own,
        cluster,
        data_servers: coordinator.data_servers.clone(),
        health: bus.health(),
        has_peers: !settings.peers.is_empty(),
        heartbeat_interval: settings.heartbeat_interval,
        initial_members: config.initial_members,
        gate: gate.clone(),
        wanted: config.copies,
        alone: config.alone,
        shutdown: shutdown.clone(),
        conflict: Arc::clone(&conflict),
    };
    tasks.push(admission.start());
    tasks.push(stop_when_poisoned(&runtime, Arc::clone(&store), shutdown.clone()));
    // Whoever started it may not want to know.
    let _ = listening.send(ports);
    end(&runtime, settings, &shutdown, heart.say_goodbye(), public).await;
    tasks.iter().for_each(Task::abort);
    coordinator.stop();
    bus.close().await;
    store.close().await;
    if let Some(reason) = store.poisoned() {
        return Err(StartError::VolumeFailed { reason });
    }
    if conflict.load(Ordering::SeqCst) {
        let reason = "another data server runs on a copy of this volume, or this volume is an \
                      old copy; empty it to make it a new member";
        return Err(StartError::Volume(reason.into()));
    }
    if is_retired.load(Ordering::SeqCst) { Err(StartError::Retired) } else { Ok(()) }
}

/// What operators ask: of the members, as at an api, and of this volume.
fn admin_routes(operators: Operators, scrub: ScrubHandle) -> BoxedFilter<(Response,)> {
    let scrub = warp::path!("admin" / "scrub").and(warp::post()).map(move || {
        scrub.start_now();
        StatusCode::ACCEPTED.into_response()
    });
    admin::routes(operators).or(scrub).unify().boxed()
}

/// A volume whose sync failed, or whose index is damaged, is read no more by this
/// process: what the disk still holds, only a new start tells.
fn stop_when_poisoned(runtime: &Runtime, store: Arc<dyn Store>, shutdown: Shutdown) -> Task {
    let inner = runtime.clone();
    runtime.spawn("poison-watch", async move {
        while store.poisoned().is_none() {
            inner.sleep(POISON_CHECK_INTERVAL).await;
        }
        shutdown.force();
    })
}

async fn describe_own(
    config: &DataServerConfig,
    identity: &Identity,
    store: &dyn Store,
    ports: &Ports,
) -> Result<Own, StartError> {
    let advertised = config.common.advertised(&ports.address);
    let address = advertised.map_err(|reason| StartError::Advertise { reason })?;
    let usage = store.usage().await.map_err(|error| StartError::Volume(Box::new(error)))?;
    let gib = (usage.space.total_bytes >> 30).max(1);
    Ok(Own {
        node: identity.node,
        generation: identity.generation,
        address,
        weight: u32::try_from(gib).unwrap_or(u32::MAX),
        zone: config.zone.clone(),
    })
}
