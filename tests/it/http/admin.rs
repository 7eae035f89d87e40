//! Tests `/api/admin`.

use taskcast::task::UserId;

use super::*;

fn admin(issued: UnixTime) -> String {
    sign("root", "acme", Some("admin"), issued)
}

#[tokio::test]
async fn a_disconnected_user_needs_a_new_token() {
    let app = App::with(TaskApi::Off).serving(Routes::All, None);
    let before = token("ann", "acme");
    let answer = app.post("/api/admin/disconnect", &admin(UnixTime::now()), json!({"userId": "ann"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!((&answer.body["userId"], &answer.body["everywhere"]), (&json!("ann"), &json!(true)));
    assert!(answer.body["disconnectedAt"].as_str().is_some_and(|at| at.ends_with('Z')));
    let command = app.commands.lock().expect("whole").try_recv();
    assert_eq!(command, Ok(NodeCommand::Disconnect(UserId::parse("ann").expect("a name"))));

    app.get("/api/tasks", &before).await.is_error(401, "unauthorized", "the token is not valid");
    let later = sign("ann", "acme", None, UnixTime::now().plus(Duration::from_secs(2)));
    for other in [later, token("bob", "acme")] {
        let answer = app.get("/api/tasks", &other).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "the token is accepted, and only the feature is off: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn only_administrators_disconnect() {
    let app = App::new().serving(Routes::All, None);
    let body = json!({"userId": "ann"});
    app.post("/api/admin/disconnect", &pipeline_token("acme"), body.clone()).await.is_error(
        403,
        "forbidden",
        "the token lacks the scope admin",
    );
    for body in [
        json!({}),
        json!({"userId": ""}),
        json!({"userId": 7}),
        json!({"userId": "a", "org": "b"}),
        json!("ann"),
    ] {
        let answer = app.post("/api/admin/disconnect", &admin(UnixTime::now()), body).await;
        answer.is_error(400, "invalid_payload", "the body must be {\"userId\": the id of a user}");
    }
    assert!(app.commands.lock().expect("whole").try_recv().is_err());
}

#[tokio::test]
async fn the_public_port_has_no_admin_route_when_there_is_an_admin_port() {
    let app = App::new();
    let answer = app.post("/api/admin/disconnect", &admin(UnixTime::now()), json!({"userId": "ann"})).await;
    answer.is_error(404, "not_found", "no such route");
    let app = app.serving(Routes::Admin, None);
    let answer = app.post("/api/admin/disconnect", &admin(UnixTime::now()), json!({"userId": "ann"})).await;
    assert_eq!(answer.status, StatusCode::OK);
}
