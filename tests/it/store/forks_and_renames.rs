//! Tests forks on GitHub and renamed repositories: a store uses the facts from one delivery for the next ones.

use serde_json::json;
use taskcast::store::Delivered;

use super::{
    deliveries::{delivery, pr},
    *,
};

const LINK: &str = "https://github.com/Acme/web.site/pull/7";

/// A task of `Acme/web.site` with these fields.
async fn task(store: &dyn Store, fields: Value) -> TaskId {
    let alice = viewer("alice", "acme");
    let new = parsed(json!({"title": "t", "repo": "acme/Web.Site"}));
    let id = store.create(new, &alice, None).await.expect("created").task.id;
    store.patch(&id, &alice, patch(fields)).await.expect("patched");
    id
}

/// A `pull_request` delivery about pull request 7 of the repository with this id and name, from its own branch `agent/42`.
fn pull_request_7(action: &str, second: u32, id: u64, name: &str) -> Value {
    let mut payload = pr(action, second, if action == "closed" { "merged" } else { "open" });
    payload["repository"] = json!({
        "id": id, "full_name": name, "html_url": format!("https://github.com/{name}"), "created_at": "2019-05-15T15:19:25Z",
    });
    payload["pull_request"]["html_url"] = format!("https://github.com/{name}/pull/7").into();
    payload["pull_request"]["head"] =
        json!({"ref": "agent/42", "sha": "abc1", "repo": {"id": id, "full_name": name}});
    payload
}

/// A `pull_request` delivery about pull request 9, from the branch `agent/42` of another user's fork.
fn strangers(action: &str, second: u32) -> Value {
    let mut payload = pull_request_7(action, second, 1, "Acme/web.site");
    payload["pull_request"]["number"] = 9.into();
    payload["pull_request"]["author_association"] = "NONE".into();
    payload["pull_request"]["head"] =
        json!({"ref": "agent/42", "sha": "abc2", "repo": {"id": 66, "full_name": "stranger/web.site"}});
    payload
}

async fn deliver(store: &dyn Store, id: &str, event: &str, payload: &Value) -> Delivered {
    store.deliver(delivery(id, event, payload)).await.expect("delivered")
}

async fn view(store: &dyn Store, id: &TaskId) -> Value {
    full(&store.task(id).await.expect("read").task.expect("there"))
}

pub async fn a_fork_does_not_take_over_a_task(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let store = &*store;
    let id = task(store, json!({"status": "coding", "githubBranch": "agent/42", "issueNumber": 42})).await;
    assert_eq!(deliver(store, "1", "pull_request", &strangers("opened", 1)).await, Delivered::NoTask);
    let written = Delivered::Written(id.clone());
    let opened = pull_request_7("opened", 2, 1, "Acme/web.site");
    assert_eq!(deliver(store, "2", "pull_request", &opened).await, written);
    assert_eq!(deliver(store, "3", "pull_request", &strangers("closed", 3)).await, Delivered::NoTask);
    let merged = pull_request_7("closed", 4, 1, "Acme/web.site");
    assert_eq!(deliver(store, "4", "pull_request", &merged).await, written);
    let told = view(store, &id).await;
    assert_eq!([&told["status"], &told["prNumber"]], [&json!("merged"), &json!(7)]);
    assert_eq!(told["events"].as_array().expect("an array").len(), 2);
}

/// The facts about a commit are used for later deliveries, even if the first delivery found no task.
pub async fn checks_of_a_fork_find_its_pull_request(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let store = &*store;
    let run = json!({
        "action": "completed", "repository": strangers("opened", 1)["repository"], "workflow_run": {
            "name": "ci", "conclusion": "failure", "head_sha": "abc2", "head_branch": "agent/42", "pull_requests": [],
            "repository": {"id": 1, "full_name": "Acme/web.site"},
            "head_repository": {"id": 66, "full_name": "stranger/web.site"},
        },
    });
    let by_branch = task(store, json!({"status": "coding", "githubBranch": "agent/42"})).await;
    assert_eq!(deliver(store, "1", "workflow_run", &run).await, Delivered::NoTask);
    assert_eq!(deliver(store, "2", "pull_request", &strangers("opened", 1)).await, Delivered::NoTask);
    assert_eq!(deliver(store, "3", "workflow_run", &run).await, Delivered::NoTask);
    let numbered = task(store, json!({"status": "coding", "prNumber": 9})).await;
    assert_eq!(deliver(store, "4", "workflow_run", &run).await, Delivered::Written(numbered.clone()));
    assert_eq!(deliver(store, "4", "workflow_run", &run).await, Delivered::Duplicate);
    let told = view(store, &numbered).await;
    assert_eq!(
        told["events"][0]["payload"],
        json!({"kind": "workflow_run", "name": "ci", "conclusion": "failure", "headSha": "abc2"})
    );
    assert_eq!(view(store, &by_branch).await["events"], json!([]));
}

pub async fn tasks_follow_a_renamed_repository(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let store = &*store;
    let numbered = task(store, json!({"status": "coding", "prNumber": 7})).await;
    let opened = pull_request_7("opened", 1, 1, "Acme/web.site");
    assert_eq!(deliver(store, "1", "pull_request", &opened).await, Delivered::Written(numbered.clone()));
    let mut renamed = json!({"action": "renamed", "changes": {"repository": {"name": {"from": "web.site"}}}});
    renamed["repository"] = pull_request_7("opened", 1, 1, "Acme/page")["repository"].clone();
    assert_eq!(deliver(store, "2", "repository", &renamed).await, Delivered::NoTask);
    let edited = pull_request_7("edited", 2, 1, "Acme/page");
    assert_eq!(deliver(store, "3", "pull_request", &edited).await, Delivered::Written(numbered.clone()));
    let told = view(store, &numbered).await;
    assert_eq!(told["prUrl"], "https://github.com/Acme/page/pull/7");
    assert_eq!(told["repo"], "acme/Web.Site");

    // The owner of the repository is renamed. GitHub sends no event for that.
    let moved = pull_request_7("edited", 3, 1, "Acme2/page");
    assert_eq!(deliver(store, "4", "pull_request", &moved).await, Delivered::Written(numbered.clone()));

    // Another repository takes the name and gets its own task.
    let theirs = pull_request_7("edited", 4, 2, "Acme/web.site");
    assert_eq!(deliver(store, "5", "pull_request", &theirs).await, Delivered::NoTask);
    let new = task(store, json!({"status": "coding", "prNumber": 7})).await;
    assert_eq!(deliver(store, "6", "pull_request", &theirs).await, Delivered::Written(new.clone()));
    let ours = pull_request_7("closed", 5, 1, "Acme2/page");
    assert_eq!(deliver(store, "2", "repository", &renamed).await, Delivered::NoTask);
    assert_eq!(deliver(store, "7", "pull_request", &ours).await, Delivered::Written(numbered.clone()));
    assert_eq!(view(store, &numbered).await["status"], "merged");
    assert_eq!(view(store, &new).await["status"], "pr_open");
}

pub async fn links_follow_a_renamed_repository(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let store = &*store;
    let linked = task(store, json!({"status": "coding", "repo": null, "prUrl": LINK})).await;
    let unknown = pull_request_7("edited", 1, 1, "Acme/page");
    assert_eq!(deliver(store, "1", "pull_request", &unknown).await, Delivered::NoTask);
    let mut transferred = json!({"action": "transferred"});
    transferred["changes"] = json!({"owner": {"from": {"organization": {"login": "Acme"}}}});
    transferred["repository"] = pull_request_7("opened", 1, 1, "Other/web.site")["repository"].clone();
    deliver(store, "2", "repository", &transferred).await;
    let edited = pull_request_7("edited", 2, 1, "Other/web.site");
    assert_eq!(deliver(store, "3", "pull_request", &edited).await, Delivered::Written(linked));
}
