//! The few fields of GitHub's payloads that taskcast reads. All other fields may be missing, new or malformed.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The payload of any event that taskcast uses.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Payload {
    pub action: Option<String>,
    /// In the event `repository`, the former names. In other events the content is different.
    #[serde(default)]
    pub changes: Value,
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
    /// The id stays the same when the repository is renamed or transferred.
    pub id: Option<u64>,
    pub full_name: String,
    pub html_url: Option<String>,
    pub private: Option<bool>,
    /// A date as text, or a number of seconds in some events.
    #[serde(default)]
    pub created_at: Value,
}

/// The repository that a branch or a commit comes from. GitHub sends null when that repository has been deleted.
#[derive(Debug, Default)]
pub(super) enum Origin {
    /// The payload does not contain the field.
    #[default]
    Unknown,
    Deleted,
    Repository(RepositoryRef),
}

#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRef {
    pub id: Option<u64>,
    pub full_name: Option<String>,
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let origin = Option::<RepositoryRef>::deserialize(deserializer)?;
        Ok(origin.map_or(Self::Deleted, Self::Repository))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub login: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
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
    pub author_association: Option<String>,
    pub user: Option<Account>,
    pub head: Option<Head>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "ref")]
    pub branch: Option<String>,
    pub sha: Option<String>,
    #[serde(default)]
    pub repo: Origin,
}

#[derive(Debug, Deserialize)]
pub(super) struct Issue {
    pub number: u64,
    pub html_url: Option<String>,
    pub title: Option<String>,
    pub body: Option<String>,
    pub author_association: Option<String>,
    /// Present when the issue is a pull request.
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
    /// Only reviews have a state.
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
    /// Only in a workflow run: the repository whose workflow ran. `head_repository` is the one whose commit it ran for.
    pub repository: Option<RepositoryRef>,
    #[serde(default)]
    pub head_repository: Origin,
    pub pull_requests: Option<Vec<RunPullRequest>>,
    /// Only in a check run, which has no branch of its own.
    pub check_suite: Option<RunSuite>,
    /// Only in a check run or check suite: the app that created it.
    pub app: Option<App>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunPullRequest {
    pub number: u64,
    pub head: Option<RunEnd>,
    pub base: Option<RunEnd>,
}

/// The head or the base of a check's pull request.
#[derive(Debug, Deserialize)]
pub(super) struct RunEnd {
    pub repo: Option<RunRepository>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunRepository {
    pub id: Option<u64>,
    /// The repository's URL in GitHub's API. No other field names the repository's owner.
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
