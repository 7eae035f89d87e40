//! Metrics of the HTTP API.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use strum::VariantArray;

use super::{
    labelled::{PairCounters, pairs},
    labels::WebhookOutcome::{self, Duplicate, Failed, Ignored, Unavailable, Written},
};
use crate::github::EventName;

const OTHER_EVENT: &str = "other";

#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram>,
    webhooks: PairCounters<&'static str, WebhookOutcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Family::<Request, Counter>::default();
        let seconds = Family::<Route, Histogram>::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "http_requests",
            "Answered HTTP requests by the route's template, method and class of status",
            requests.clone(),
        );
        registry.register(
            "http_request_seconds",
            "Time from an HTTP request's head to its answer, without Socket.IO requests",
            seconds.clone(),
        );
        // A scrape is itself a request for `/metrics`, so these values exist from the start.
        let metrics_request = Request { route: "/metrics".to_owned(), method: "GET", status: "2xx" };
        requests.get_or_create_owned(&metrics_request);
        seconds.get_or_create_owned(&Route { route: metrics_request.route });
        let webhooks = PairCounters::register(
            registry,
            "webhooks",
            "Deliveries of GitHub's webhook by event and outcome",
            ["event", "outcome"],
        )
        .with(
            pairs(EventName::VARIANTS, &[Written, Duplicate, Ignored, Unavailable, Failed])
                .map(|(event, outcome)| (event.into(), outcome)),
        );
        Self { requests, seconds, webhooks }
    }

    /// `route` is a route's template, or a fixed word if there is no route.
    pub fn answered(&self, route: &str, method: &http::Method, status: http::StatusCode) {
        let labels = Request { route: route.to_owned(), method: name(method), status: class(status) };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn observe_duration(&self, route: &str, elapsed: Duration) {
        let labels = Route { route: route.to_owned() };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts a delivery. `None` means an event that taskcast does not use.
    pub fn webhook(&self, event: Option<EventName>, outcome: WebhookOutcome) {
        self.webhooks.inc((event.map_or(OTHER_EVENT, Into::into), outcome));
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

/// A client may send any word as its method, so unknown words count as `other`.
fn name(method: &http::Method) -> &'static str {
    ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}

fn class(status: http::StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
