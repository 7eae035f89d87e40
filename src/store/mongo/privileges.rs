//! Finds the privileges that the user of `MONGODB_URI` has and those that are missing, before MongoDB refuses a request.

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};

use super::{MongoStore, config::Images, failure::with_timeout, indexes};

/// The privileges of the user. `None` means that MongoDB requires no user, or does not report the privileges.
pub(super) async fn granted(database: &Database) -> Option<Vec<Document>> {
    let status = with_timeout(database.run_command(doc! {"connectionStatus": 1, "showPrivileges": true}))
        .await
        .ok()?;
    let info = status.get_document("authInfo").ok()?;
    if info.get_array("authenticatedUsers").is_ok_and(|users| users.is_empty()) {
        return None;
    }
    let privileges = info.get_array("authenticatedUserPrivileges").ok()?;
    Some(privileges.iter().filter_map(Bson::as_document).cloned().collect())
}

/// Returns the missing privileges. `images` is `None` if the collection does not exist yet, or if its options can't be read.
pub(super) async fn missing(
    store: &MongoStore,
    database: &Database,
    granted: &[Document],
    images: Option<bool>,
    writes: bool,
) -> Vec<String> {
    let tasks = store.config.collection.as_str();
    let (deliveries, facts) = (store.config.deliveries(), store.config.facts());
    let keys = store.config.keys();
    let mut needed =
        vec![("", "listCollections"), (tasks, "find"), (tasks, "changeStream"), (tasks, "listIndexes")];
    match images {
        Some(true) => {}
        Some(false) if store.config.images == Images::Require => {}
        Some(false) => needed.push((tasks, "collMod")),
        None => needed.push((tasks, "createCollection")),
    }
    if indexes::are_missing(store, database).await {
        needed.push((tasks, "createIndex"));
    }
    if writes {
        needed.push((tasks, "insert"));
    }
    if writes || store.config.webhooks {
        needed.push((tasks, "update"));
    }
    if store.config.webhooks {
        for collection in [&deliveries, &facts] {
            needed.extend(["find", "insert", "createIndex"].map(|action| (collection.as_str(), action)));
        }
    }
    if writes {
        let actions = ["find", "insert", "update", "createIndex", "changeStream"];
        needed.extend(actions.map(|action| (keys.as_str(), action)));
    }
    let is_granted = |collection: &str, action: &str| {
        granted.iter().any(|privilege| {
            covers(privilege, database.name(), collection)
                && privilege.get_array("actions").is_ok_and(|actions| {
                    actions.iter().any(|granted_action| {
                        granted_action.as_str() == Some(action)
                            || granted_action.as_str() == Some("anyAction")
                    })
                })
        })
    };
    needed
        .into_iter()
        .filter(|(collection, action)| !is_granted(collection, action))
        .map(|(collection, action)| match collection {
            "" => format!("{action} on {}", database.name()),
            name => format!("{action} on {}.{name}", database.name()),
        })
        .collect()
}

/// An empty name in a privilege matches every name. An empty `collection` stands for the database itself.
fn covers(privilege: &Document, database: &str, collection: &str) -> bool {
    let Ok(resource) = privilege.get_document("resource") else { return false };
    if resource.get_bool("anyResource").unwrap_or(false) {
        return true;
    }
    let (Ok(in_database), Ok(of_collection)) = (resource.get_str("db"), resource.get_str("collection"))
    else {
        return false;
    };
    (in_database.is_empty() || in_database == database)
        && (of_collection.is_empty() || of_collection == collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_covers_what_it_names() {
        let of = |db: &str, collection: &str| doc! {"resource": {"db": db, "collection": collection}};
        for (privilege, covered) in [
            (of("app", "tasks"), true),
            (of("app", ""), true),
            (of("", ""), true),
            (of("", "tasks"), true),
            (doc! {"resource": {"anyResource": true}}, true),
            (of("app", "users"), false),
            (of("other", ""), false),
            (doc! {"resource": {"cluster": true}}, false),
            (doc! {}, false),
        ] {
            assert_eq!(covers(&privilege, "app", "tasks"), covered, "{privilege}");
        }
        assert!(covers(&of("app", ""), "app", "") && !covers(&of("app", "tasks"), "app", ""));
    }
}
