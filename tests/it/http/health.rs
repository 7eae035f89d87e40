//! Tests `/api/health`.

use taskcast::http::NodeHealth;

use super::*;

fn in_phase(phase: Phase) -> App {
    let app = App::new();
    let report = HealthReport {
        status: phase,
        relay: RelayHealth {
            lag_ms: 7,
            epoch: 2,
            last_event_id: Some("0000000000000001-000000-000000".into()),
        },
        cluster: ClusterHealth {
            ok: false,
            nodes: vec![NodeHealth { id: "n1".into(), version: "0.1.0".into(), connections: 3, lag_ms: 9 }],
        },
        ..well()
    };
    App { _folder: app._folder, ..App::over(app.store, TaskApi::Full, report) }
}

#[tokio::test]
async fn the_health_report_has_exactly_these_fields() {
    let answer = in_phase(Phase::Degraded).get("/api/health", "").await;
    assert_eq!(answer.status, StatusCode::OK, "clients must not be turned away");
    assert_eq!(
        answer.body,
        json!({
            "status": "degraded",
            "websocket": {"connectedUsers": 2, "connections": 3, "messagesPerSecond": 1.5, "totalErrors": 4},
            "relay": {"lagMs": 7, "epoch": 2, "lastEventId": "0000000000000001-000000-000000"},
            "store": {"kind": "embedded", "ok": true},
            "cluster": {
                "ok": false,
                "nodes": [{"id": "n1", "version": "0.1.0", "connections": 3, "lagMs": 9}],
            },
        })
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn only_a_node_that_accepts_no_clients_is_unavailable() {
    for (phase, text, status) in [
        (Phase::Ok, "ok", 200),
        (Phase::Degraded, "degraded", 200),
        (Phase::Starting, "starting", 503),
        (Phase::Draining, "draining", 503),
    ] {
        let app = in_phase(phase);
        let answer = app.get("/api/health", "").await;
        assert_eq!((answer.status.as_u16(), &answer.body["status"]), (status, &json!(text)));
        assert_eq!(app.get("/api/health/live", "").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn health_needs_no_token() {
    let app = App::new();
    for path in ["/api/health", "/api/health/live"] {
        let request = Request::builder().uri(path).body(Body::empty()).expect("valid");
        assert_eq!(app.send(request).await.status, StatusCode::OK);
    }
}
