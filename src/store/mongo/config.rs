//! The settings of the MongoDB store, and the driver options that follow from them.

use std::{fmt, time::Duration};

use mongodb::options::{ClientOptions, ConnectionString, ReadPreference, SelectionCriteria, WriteConcern};

use super::uri::{UriError, without_ignored};
use crate::{store::StoreError, task::DefaultOrg};

const DEFAULT_DATABASE: &str = "taskcast";
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The driver checks an unusable server again after this time at the latest. With the driver's default of ten seconds, every client would
/// wait for ten seconds. This interval and the connect timeout also limit how long the driver treats a frozen server as alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of connections to each server, unless the URI sets one. The driver's default of ten is too few for a burst of
/// webhooks.
const MAX_POOL_SIZE: u32 = 32;
/// Options whose values are secrets. No error message may be made from a URI that contains these options.
const SECRET_OPTIONS: [&str; 3] =
    ["authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"];

#[derive(Clone)]
pub struct MongoConfig {
    pub uri: String,
    /// `None` means that the database of the URI is used, or `taskcast` if the URI names no database.
    pub database: Option<String>,
    pub collection: String,
    pub images: Images,
    pub default_org: DefaultOrg,
    /// `true` means that taskcast accepts GitHub's deliveries. Deliveries need an index and two more collections.
    pub webhooks: bool,
    /// `true` means that the task API writes tasks. Its idempotency keys need one more collection.
    pub task_writes: bool,
}

impl MongoConfig {
    /// The collection of the deliveries that were processed.
    pub(super) fn deliveries(&self) -> String {
        format!("{}_github_deliveries", self.collection)
    }

    /// The collection of the idempotency keys that were used.
    pub(super) fn keys(&self) -> String {
        format!("{}_idempotency_keys", self.collection)
    }

    /// The collection of the facts about repositories that deliveries contained.
    pub(super) fn facts(&self) -> String {
        format!("{}_github_repositories", self.collection)
    }
}

/// The permission to enable pre- and post-images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// taskcast enables the images if they are off.
    Auto,
    /// taskcast never changes an existing collection. It reports an error if the images are off.
    Require,
}

impl MongoConfig {
    /// The database of the tasks, from the setting, the URI or the default.
    pub fn database_name(&self) -> Result<String, StoreError> {
        Ok(database_name(self, &parse_uri(&self.uri)?))
    }

    /// Returns the ignored options of a usable URI. Sends no request.
    pub fn check_uri(uri: &str) -> Result<Vec<&'static str>, UriError> {
        let (uri, ignored) = without_ignored(uri)?;
        ConnectionString::parse(uri).map_err(|_| UriError::Malformed)?;
        Ok(ignored)
    }
}

/// Leaves the URI out, because it contains a password.
impl fmt::Debug for MongoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoConfig")
            .field("database", &self.database)
            .field("collection", &self.collection)
            .field("images", &self.images)
            .field("default_org", &self.default_org)
            .field("webhooks", &self.webhooks)
            .field("task_writes", &self.task_writes)
            .finish_non_exhaustive()
    }
}

/// Checks the URI without any request, not even to DNS.
pub(super) fn parse_uri(uri: &str) -> Result<ConnectionString, StoreError> {
    let (uri, _) = without_ignored(uri)
        .map_err(|error| StoreError::Unusable(format!("MONGODB_URI can't be used: {error}")))?;
    ConnectionString::parse(&uri).map_err(|_| {
        let reason = match ConnectionString::parse(without_secrets(&uri)) {
            Err(error) => error.to_string(),
            Ok(_) => "check its user name and password: characters such as : / ? # [ ] @ % must be \
                      percent-encoded"
                .to_owned(),
        };
        StoreError::Unusable(format!("MONGODB_URI is not a MongoDB connection string: {reason}"))
    })
}

pub(super) fn database_name(config: &MongoConfig, uri: &ConnectionString) -> String {
    let named = config.database.clone().or_else(|| uri.default_database.clone());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_DATABASE.to_owned())
}

/// How many connections may wait for a document that a transaction has locked. The commit of the transaction needs a connection, too.
pub(super) fn max_waiting_writes(uri: &ConnectionString) -> usize {
    (uri.max_pool_size.unwrap_or(MAX_POOL_SIZE) as usize / 2).max(1)
}

/// Asks DNS only if the URI begins with `mongodb+srv`.
pub(super) async fn client_options(uri: &ConnectionString) -> Result<ClientOptions, mongodb::error::Error> {
    let mut options = ClientOptions::parse(uri.clone()).await?;
    options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT_INTERVAL);
    options.max_pool_size.get_or_insert(MAX_POOL_SIZE);
    options.app_name.get_or_insert_with(|| "taskcast".to_owned());
    options.write_concern = Some(WriteConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    Ok(options)
}

/// Returns the URI without its user, its password and the secret options. A password that is not percent-encoded may contain any
/// character, so this function removes everything up to the last `@`.
fn without_secrets(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query: Vec<&str> = query
        .split('&')
        .filter(|option| {
            let name = option.split('=').next().unwrap_or_default().to_ascii_lowercase();
            !name.is_empty() && !SECRET_OPTIONS.contains(&name.as_str())
        })
        .collect();
    let scheme = if matches!(scheme, "mongodb" | "mongodb+srv") { scheme } else { "unknown" };
    format!("{scheme}://{hosts}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_uri_is_explained_without_its_secrets() {
        for uri in [
            "mongodb://alice:hunter2@host:notaport/db",
            "mongodb://alice:hunter2%zz@host/db",
            "mongodb://alice:hunter2/x@host/db",
            "mongodb://alice:hunter2@x@host/db",
            "mongodb://alice:hunter2@host/db?w=-7",
            "mongodb://host/db?authMechanismProperties=hunter2",
            "mongodb:alice:hunter2@host/db",
            "alice:hunter2@host/db",
            "hunter2://host",
            "",
        ] {
            let text = match parse_uri(uri) {
                Err(StoreError::Unusable(text)) => text,
                other => panic!("{uri}: {other:?}"),
            };
            assert!(text.contains("MONGODB_URI") && !text.contains("hunter2"), "{uri}: {text}");
        }
    }
}
