//! `/livez`, `/readyz` and `/metrics`.

use std::fmt;
use std::sync::Arc;

use http::{StatusCode, header};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Whether a service can take requests now.
pub trait Health: Send + Sync + fmt::Debug {
    /// Must answer at once from what is already known: it asks no broker, no
    /// peer and no disk.
    ///
    /// # Errors
    /// Every reason why no request should be sent here, each as one sentence.
    fn readiness(&self) -> Result<(), Vec<String>>;
}

/// The probes and the metrics, to be combined with a service's own routes by
/// `or`.
///
/// - `GET /livez`: 200 while the process answers at all.
/// - `GET /readyz`: 200, or 503 with one reason a line.
/// - `GET /metrics`: the text format of Prometheus.
pub fn routes(health: Arc<dyn Health>, metrics: Metrics) -> BoxedFilter<(Response,)> {
    let live = warp::path!("livez").and(warp::get()).map(|| plain(StatusCode::OK, "ok\n"));
    let ready = warp::path!("readyz").and(warp::get()).map(move || readyz(health.as_ref()));
    let scrape = warp::path!("metrics").and(warp::get()).map(move || {
        warp::reply::with_header(metrics.encode(), header::CONTENT_TYPE, CONTENT_TYPE)
            .into_response()
    });
    live.or(ready).unify().or(scrape).unify().boxed()
}

fn readyz(health: &dyn Health) -> Response {
    match health.readiness() {
        Ok(()) => plain(StatusCode::OK, "ok\n"),
        Err(reasons) => plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    warp::reply::with_status(text.into(), status).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower_service::Service;

    #[derive(Debug, Default)]
    struct Switch(AtomicBool);

    impl Health for Switch {
        fn readiness(&self) -> Result<(), Vec<String>> {
            if self.0.load(Ordering::Relaxed) {
                return Ok(());
            }
            Err(vec!["no data server is known".to_owned(), "shutting down".to_owned()])
        }
    }

    async fn get(path: &str, ready: bool) -> (StatusCode, String) {
        let health = Arc::new(Switch(AtomicBool::new(ready)));
        let metrics = Metrics::new("1").expect("fixed names");
        let own = warp::path!("admin" / "own").map(|| "mine".into_response());
        let all = routes(health, metrics).or(own).unify();
        let request = http::Request::get(path).body(String::new()).expect("a path");
        let response = warp::service(all).call(request).await.expect("infallible");
        let status = response.status();
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_process_is_live_even_when_it_is_not_ready() {
        assert_eq!(get("/livez", false).await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get("/readyz", true).await.0, StatusCode::OK);
        let (status, reasons) = get("/readyz", false).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reasons, "no data server is known\nshutting down\n");
    }

    #[tokio::test]
    async fn the_metrics_and_other_routes_are_reached() {
        let (status, text) = get("/metrics", false).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("holdfast_build_info"), "{text}");
        assert_eq!(get("/admin/own", false).await.1, "mine");
        assert_eq!(get("/livez/more", false).await.0, StatusCode::NOT_FOUND);
    }
}
