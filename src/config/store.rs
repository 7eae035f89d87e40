//! Where tasks live.

use std::path::PathBuf;

use crate::task::{DefaultOrg, OrgId};

use super::{Secret, reader::Reader};

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub backend: Backend,
    /// Of the embedded store, and of the development secret on either.
    pub data_dir: PathBuf,
    pub default_org: DefaultOrg,
}

#[derive(Clone, Debug)]
pub enum Backend {
    Embedded,
    Mongo(MongoSettings),
}

#[derive(Clone, Debug)]
pub struct MongoSettings {
    pub uri: Secret,
    /// None: the URI's, else `taskcast`.
    pub database: Option<String>,
    pub collection: String,
    pub images: MongoImages,
}

/// Whether pre- and post-images may be switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MongoImages {
    #[default]
    Auto,
    Require,
}

impl StoreConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let uri =
            reader.parse("MONGODB_URI", "a URI that begins with mongodb:// or mongodb+srv://", |text| {
                let rest = text.strip_prefix("mongodb://").or_else(|| text.strip_prefix("mongodb+srv://"));
                rest.filter(|rest| !rest.is_empty()).map(|_| Secret::new(text))
            });
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
        let choices = [("auto", MongoImages::Auto), ("require", MongoImages::Require)];
        let images = reader.choice("MONGODB_IMAGES", &choices).unwrap_or_default();
        let org =
            reader.parse("DEFAULT_ORG", "a name of at most 256 bytes without control characters", |text| {
                let usable = text.len() <= 256 && !text.chars().any(char::is_control);
                OrgId::parse(text).filter(|_| usable)
            });
        if reader.text("REDIS_URL").is_some() {
            let also =
                if uri.is_none() { "; with MONGODB_URI unset they could not share tasks either" } else { "" };
            reader.problem(
                "REDIS_URL",
                format!("must be unset: this version does not support several nodes yet{also}"),
            );
        }
        Self {
            backend: match uri {
                Some(uri) => Backend::Mongo(MongoSettings {
                    uri,
                    database,
                    collection: collection.unwrap_or_default(),
                    images,
                }),
                None => Backend::Embedded,
            },
            data_dir: reader.text("DATA_DIR").unwrap_or_default().into(),
            default_org: DefaultOrg(org),
        }
    }
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
