//! What is read of GitHub's payloads: a few fields of each. Everything else may be missing, new, or odd.

use serde::Deserialize;

/// The payload of any event that is used.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Payload {
    pub action: Option<String>,
    pub repository: Option<Repository>,
    pub sender: Option<Account>,
    pub pull_request: Option<PullRequest>,
    pub issue: Option<Issue>,
    pub comment: Option<Remark>,
    pub review: Option<Remark>,
    pub check_run: Option<Run>,
    pub check_suite: Option<Run>,
    pub workflow_run: Option<Run>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    pub full_name: String,
    pub html_url: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub login: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PullRequest {
    pub number: u64,
    pub html_url: Option<String>,
    pub title: Option<String>,
    pub body: Option<String>,
    pub state: Option<String>,
    pub draft: Option<bool>,
    pub merged: Option<bool>,
    pub merged_at: Option<String>,
    pub merge_commit_sha: Option<String>,
    pub updated_at: Option<String>,
    pub head: Option<Head>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "ref")]
    pub branch: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Issue {
    pub number: u64,
    pub html_url: Option<String>,
    pub title: Option<String>,
    pub body: Option<String>,
    /// There when the issue is a pull request.
    pub pull_request: Option<IssuePullRequest>,
}

#[derive(Debug, Deserialize)]
pub(super) struct IssuePullRequest {
    pub html_url: Option<String>,
}

/// A comment or a review.
#[derive(Debug, Deserialize)]
pub(super) struct Remark {
    pub html_url: Option<String>,
    pub body: Option<String>,
    /// Of a review.
    pub state: Option<String>,
    pub user: Option<Account>,
}

/// A check run, a check suite or a workflow run.
#[derive(Debug, Deserialize)]
pub(super) struct Run {
    pub name: Option<String>,
    pub html_url: Option<String>,
    pub head_branch: Option<String>,
    pub head_sha: Option<String>,
    pub conclusion: Option<String>,
    pub pull_requests: Option<Vec<RunPullRequest>>,
    /// Of a check run: it has no branch of its own.
    pub check_suite: Option<RunSuite>,
    /// Of a check run or suite: who made it.
    pub app: Option<App>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunPullRequest {
    pub number: u64,
    pub base: Option<Base>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Base {
    pub repo: Option<BaseRepo>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BaseRepo {
    /// Of the API; the only place where the repository's owner is named.
    pub url: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunSuite {
    pub head_branch: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct App {
    pub name: Option<String>,
}
