//! Where tasks are stored, and how nodes find each other.

use std::path::PathBuf;

use crate::{
    cluster::ClusterConfig,
    store::{EmbeddedConfig, Images, MongoConfig},
    task::{DefaultOrg, OrgId},
};

use super::{WebhookConfig, reader::Reader};

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub backend: Backend,
    /// `None` means that there is only one node.
    pub cluster: Option<ClusterConfig>,
    /// The folder of the embedded store, and of the development secret with either backend.
    pub data_dir: PathBuf,
    pub default_org: DefaultOrg,
}

#[derive(Clone, Debug)]
pub enum Backend {
    Embedded(EmbeddedConfig),
    Mongo(MongoConfig),
}

impl StoreConfig {
    pub(super) fn read(reader: &mut Reader<'_>, webhook: &WebhookConfig) -> Self {
        let uri = read_uri(reader);
        let database = reader.parse(
            "MONGODB_DB",
            "the name of a database: at most 63 bytes, without spaces and / \\ . \" $ * < > : | ?",
            |text| is_database(text).then(|| text.to_owned()),
        );
        let collection = reader.parse(
            "MONGODB_TASKS_COLLECTION",
            "the name of a collection: at most 128 bytes, without $, and not system.…",
            |text| is_collection(text).then(|| text.to_owned()),
        );
        let choices = [("auto", Images::Auto), ("require", Images::Require)];
        let images = reader.choice("MONGODB_IMAGES", &choices).unwrap_or(Images::Auto);
        let org =
            reader.parse("DEFAULT_ORG", "a name of at most 256 bytes without control characters", |text| {
                let usable = text.len() <= 256 && !text.chars().any(char::is_control);
                OrgId::parse(text).filter(|_| usable)
            });
        let default_org = DefaultOrg(org);
        let data_dir = PathBuf::from(reader.text("DATA_DIR").unwrap_or_default());
        let backend = match uri {
            Some(uri) => {
                let (collection, default_org) = (collection.unwrap_or_default(), default_org.clone());
                let webhooks = !webhook.secrets.is_empty();
                Backend::Mongo(MongoConfig {
                    uri,
                    database,
                    collection,
                    images,
                    default_org,
                    webhooks,
                    // `Config` sets this when it knows the features.
                    task_writes: false,
                })
            }
            None => Backend::Embedded(EmbeddedConfig {
                data_dir: data_dir.clone(),
                default_org: default_org.clone(),
            }),
        };
        let redis = reader.parse(
            "REDIS_URL",
            "redis://[user:password@]host[:port][/database], or rediss://… for TLS, with : / ? # [ ] @ % in user and \
             password percent-encoded",
            |text| redis(text, &backend),
        );
        if redis.is_some() && matches!(backend, Backend::Embedded(_)) {
            reader.problem("REDIS_URL", "needs MONGODB_URI, because nodes share their tasks in MongoDB");
        }
        Self { backend, cluster: redis, data_dir, default_org }
    }
}

fn redis(url: &str, backend: &Backend) -> Option<ClusterConfig> {
    let (database, collection) = match backend {
        Backend::Mongo(mongo) => (mongo.database_name().unwrap_or_default(), mongo.collection.as_str()),
        Backend::Embedded(_) => Default::default(),
    };
    ClusterConfig::new(url, &database, collection)
}

fn read_uri(reader: &mut Reader<'_>) -> Option<String> {
    let (uri, ignored) = reader.check("MONGODB_URI", |text| {
        let ignored = MongoConfig::check_uri(text).map_err(|error| error.to_string())?;
        Ok((text.to_owned(), ignored))
    })?;
    if !ignored.is_empty() {
        reader.warn(format!(
            "MONGODB_URI has options that only other drivers know, and that have no effect here: {}; remove them, or keep them if \
             other programs use the same URI",
            ignored.join(", ")
        ));
    }
    Some(uri)
}

fn is_database(name: &str) -> bool {
    name.len() <= 63
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "/\\.\"$*<>:|?".contains(c))
}

fn is_collection(name: &str) -> bool {
    name.len() <= 128
        && !name.starts_with("system.")
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '$' || c.is_control())
}
