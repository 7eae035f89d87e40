//! Tests `/metrics`: who may read it, at which port, and that a scraper can parse the answer.

use taskcast::config::Secret;

use super::*;

/// A page of metrics, parsed as strictly as a scraper does.
struct Page(Vec<(String, f64)>);

impl Page {
    fn parse(text: &str) -> Self {
        let (mut samples, mut family, mut seen) = (Vec::new(), None::<(String, String)>, Vec::new());
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.trim().is_empty(), "{line}");
                name.clone_into(&mut helped);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(name, helped, "help and type are for the same metric");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(!seen.contains(&name.to_owned()), "{name} comes twice");
                seen.push(name.to_owned());
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, kind) = family.as_ref().expect("a type before its samples");
                let bare = series.split('{').next().expect("a name");
                let suffix = bare.strip_prefix(name.as_str()).expect("of its family");
                match kind.as_str() {
                    "histogram" => assert!(["_sum", "_count", "_bucket"].contains(&suffix), "{line}"),
                    _ => assert_eq!(suffix, "", "{line}"),
                }
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                samples.push((series.to_owned(), value.parse().expect("a number")));
            }
        }
        Self(samples)
    }

    fn get(&self, series: &str) -> Option<f64> {
        self.0.iter().find(|(name, _)| name == series).map(|(_, value)| *value)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(series, _)| series.as_str()).collect()
    }
}

async fn scrape(app: &App) -> Page {
    let request = Request::builder().uri("/metrics").body(Body::empty()).expect("valid");
    let response = app.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    Page::parse(std::str::from_utf8(&bytes).expect("UTF-8"))
}

#[tokio::test]
async fn a_scrape_is_a_page_of_families() {
    let app = App::new().serving(Routes::All, None);
    let page = scrape(&app).await;
    assert_eq!(
        page.get(concat!("taskcast_build_info{version=\"", env!("TASKCAST_VERSION"), "\"}")),
        Some(1.0)
    );
    assert!(page.get("process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0));
}

#[tokio::test]
async fn requests_are_counted_by_route_template_and_never_by_path() {
    let app = App::new().serving(Routes::All, None);
    let token = token("ann", "acme");
    let ask = async |n: u32| {
        app.get(&format!("/api/tasks/{n}"), &token).await;
        app.get(&format!("/api/nothing/{n}"), &token).await;
        app.get(&format!("/api/tasks?limit={}", n % 200 + 1), &token).await;
        app.send_json(&format!("METHOD{n}"), "/api/tasks", &token, json!({})).await;
    };
    ask(0).await;
    scrape(&app).await;
    let before = scrape(&app).await;
    for n in 1..1000 {
        ask(n).await;
    }
    let after = scrape(&app).await;
    assert_eq!(before.names().len(), after.names().len(), "paths get no series of their own");
    let count = |route: &str, method: &str, status: &str| {
        let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
        after.get(&format!("taskcast_http_requests_total{{{labels}}}"))
    };
    assert_eq!(count("/api/tasks/{id}", "GET", "4xx"), Some(1000.0));
    assert_eq!(count("none", "GET", "4xx"), Some(1000.0));
    assert_eq!(count("/api/tasks", "GET", "2xx"), Some(1000.0));
    assert_eq!(count("/api/tasks", "other", "4xx"), Some(1000.0));
    assert_eq!(after.get("taskcast_http_request_seconds_count{route=\"none\"}"), Some(1000.0));
}

#[tokio::test]
async fn a_route_with_a_slash_at_its_end_is_the_same_route() {
    let app = App::new().serving(Routes::All, None);
    for path in ["/api/webhooks/github", "/api/webhooks/github/"] {
        assert_eq!(app.post(path, "", json!({})).await.status, StatusCode::UNAUTHORIZED);
    }
    let page = scrape(&app).await;
    let labels = "route=\"/api/webhooks/github\",method=\"POST\",status=\"4xx\"";
    assert_eq!(page.get(&format!("taskcast_http_requests_total{{{labels}}}")), Some(2.0));
    assert!(page.names().iter().all(|name| !name.contains("github/")));
}

#[tokio::test]
async fn with_a_metrics_token_other_requests_are_refused() {
    let app = App::new().serving(Routes::All, Some(Secret::new("s3cret")));
    let bare = Request::builder().uri("/metrics").body(Body::empty()).expect("valid");
    let answer = app.send(bare).await;
    answer.is_error(401, "unauthorized", "a bearer token is required");
    assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="taskcast""#));
    for wrong in ["", "s3cre", "s3cret2", "S3CRET"] {
        assert_eq!(app.get("/metrics", wrong).await.status, StatusCode::UNAUTHORIZED);
    }
    let request = request("GET", "/metrics", "s3cret").body(Body::empty()).expect("valid");
    let response = app.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn with_an_admin_port_metrics_are_served_only_there() {
    let public = App::new().serving(Routes::Public, None);
    public.get("/metrics", "").await.is_error(404, "not_found", "no such route");
    assert_eq!(public.get("/api/health", "").await.status, StatusCode::OK);
    let admin = App::new().serving(Routes::Admin, None);
    scrape(&admin).await;
    admin.get("/api/health", "").await.is_error(404, "not_found", "no such route");
    let answer = admin.post("/metrics", "", json!({})).await;
    answer.is_error(405, "method_not_allowed", "this route does not have that method");
    assert!(answer.header("x-request-id").is_some());
}
