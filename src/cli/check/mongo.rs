//! Checks whether MongoDB provides exact history, how far back its oplog reaches, and what its version, clock, collation, privileges and
//! journal mean for taskcast.

use std::time::Duration;

use crate::store::{Images, MongoConfig, MongoProbe, MongoStore, StoreError};

use super::{Finding, Level, clock::check_clock};

const MIN_MAJOR_VERSION: u32 = 6;
/// A shorter oplog is a warning. A node that was disconnected for longer than the oplog reaches back has to send a new state
/// to every client.
const MIN_WINDOW_SECS: u64 = 60 * 60;
/// With a longer journal commit interval, events are noticeably late, and `check` suggests lowering it.
const MAX_JOURNAL_MS: u64 = 20;
const ENABLE_IMAGES_COMMAND: &str = "db.runCommand({collMod: \"<MONGODB_TASKS_COLLECTION>\", changeStreamPreAndPostImages: \
                       {enabled: true}})";

pub(super) async fn check_mongo(config: &MongoConfig, writes: bool) -> Vec<Finding> {
    let probed = match MongoStore::new(config.clone()) {
        Ok(store) => store.probe(writes).await,
        Err(error) => Err(error),
    };
    match probed {
        Ok(probe) => findings(&probe, config.images),
        Err(error @ StoreError::Unavailable(_)) => vec![Finding::fail(
            format!("MongoDB: {error}"),
            "check MONGODB_URI, that the server runs, and that it can be reached from here",
        )],
        Err(error) => vec![Finding { level: Level::Fail, text: error.to_string(), fix: None }],
    }
}

fn findings(probe: &MongoProbe, images: Images) -> Vec<Finding> {
    vec![
        version(&probe.version),
        replica_set(probe.replica_set.as_deref()),
        pre_and_post_images(probe.images, images),
        oplog(probe.oplog_window_secs, probe.full_oplog_window_secs),
        journal(probe.journal_commit_interval_ms),
        check_clock("MongoDB", probe.clock),
        privileges(probe.missing_privileges.as_deref()),
        collation(probe.collation.as_deref()),
    ]
}

/// `locale` is the collection's default collation. `None` means the simple collation.
fn collation(locale: Option<&str>) -> Finding {
    Finding::ok(match locale {
        None => "the tasks collection compares text byte by byte".to_owned(),
        Some(locale) => format!(
            "the tasks collection has the default collation {locale}: taskcast still compares text byte by byte, \
             and creates its own indexes for that (their names end in _simple)"
        ),
    })
}

fn version(version: &str) -> Finding {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= MIN_MAJOR_VERSION => Finding::ok(format!("MongoDB {version} answers")),
        _ => Finding::fail(format!("MongoDB {version} is too old"), "upgrade it to 6.0 or newer"),
    }
}

fn replica_set(name: Option<&str>) -> Finding {
    match name {
        Some(name) => Finding::ok(format!("MongoDB is a member of the replica set {name}")),
        None => Finding::fail(
            "MongoDB is not a member of a replica set, but a standalone server or a mongos",
            "start mongod with --replSet rs0 and run rs.initiate() once (one member is enough), or give the URI \
             of the replica set that holds the tasks",
        ),
    }
}

fn pre_and_post_images(on: Option<bool>, images: Images) -> Finding {
    match (on, images) {
        (Some(true), _) => Finding::ok("pre- and post-images are on"),
        (None, _) => {
            Finding::ok("there is no tasks collection yet: it will be created with pre- and post-images")
        }
        (Some(false), Images::Auto) => Finding::warn(
            "pre- and post-images are off: taskcast switches them on when it starts, if the user of MONGODB_URI has the \
             privilege collMod",
            format!("give that user the role dbAdmin, or run {ENABLE_IMAGES_COMMAND}"),
        ),
        (Some(false), Images::Require) => Finding::fail(
            "pre- and post-images are off, and with MONGODB_IMAGES=require taskcast does not switch them on",
            format!("run {ENABLE_IMAGES_COMMAND}"),
        ),
    }
}

fn oplog(window_secs: Option<u64>, full_window_secs: Option<u64>) -> Finding {
    let Some(secs) = window_secs else {
        return Finding::warn(
            "taskcast can't read how far back the oplog reaches",
            "to have it checked, give the user the role read on the database local",
        );
    };
    let Some(full_window) = full_window_secs.map(|full_window| full_window.max(secs)) else {
        let text = format!(
            "the oplog reaches back {}, and is too new to estimate how far back it will reach",
            shown(secs)
        );
        return Finding::ok(text);
    };
    let text = match full_window > secs + secs / 10 {
        true => {
            format!(
                "the oplog reaches back {}, and will reach back {} once full",
                shown(secs),
                roughly(full_window)
            )
        }
        false => format!("the oplog reaches back {}", shown(secs)),
    };
    if full_window < MIN_WINDOW_SECS {
        return Finding::warn(
            format!("{text}: a node that is disconnected longer has to send new states to every client"),
            "enlarge it: db.adminCommand({replSetResizeOplog: 1, size: <megabytes>, minRetentionHours: 24})",
        );
    }
    Finding::ok(text)
}

/// `missing_privileges` lists the missing privileges. `None` means that MongoDB requires no user, or does not report the privileges.
fn privileges(missing_privileges: Option<&[String]>) -> Finding {
    match missing_privileges {
        None => {
            Finding::ok("MongoDB reports no privileges: it has no access control, or it does not show them")
        }
        Some([]) => Finding::ok("the user of MONGODB_URI has the privileges that it needs"),
        Some(missing_privileges) => Finding::fail(
            format!("the user of MONGODB_URI lacks {}", missing_privileges.join(", ")),
            "grant it readWrite on the database, and dbAdmin for collMod; or let another user create the collection and \
             the indexes, and enable the images",
        ),
    }
}

fn journal(interval_ms: Option<u64>) -> Finding {
    match interval_ms {
        None => Finding::warn(
            "taskcast can't read the journal commit interval, by which events can be delayed",
            "to have it checked, give the user the role clusterMonitor",
        ),
        Some(ms) => Finding {
            fix: (ms > MAX_JOURNAL_MS)
                .then(|| "if that is too late, lower storage.journal.commitIntervalMs".to_owned()),
            ..Finding::ok(format!(
                "the journal is committed every {ms} ms: events can be delayed by this time"
            ))
        },
    }
}

/// The duration in a single unit, because the value is an estimate.
fn roughly(secs: u64) -> String {
    match secs {
        ..7200 => format!("about {} minutes", secs / 60),
        7200..172_800 => format!("about {} hours", secs / 3600),
        _ => format!("about {} days", secs / 86_400),
    }
}

fn shown(secs: u64) -> String {
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{ClockReading, Timestamp};

    fn good() -> MongoProbe {
        let now = Timestamp::now();
        MongoProbe {
            version: "6.0.5".into(),
            replica_set: Some("rs0".into()),
            images: Some(true),
            collation: None,
            oplog_window_secs: Some(90_000),
            full_oplog_window_secs: Some(90_000),
            clock: Some(ClockReading { before: now, remote: now, after: now }),
            missing_privileges: Some(Vec::new()),
            journal_commit_interval_ms: Some(100),
        }
    }

    #[track_caller]
    fn assert_levels(probe: MongoProbe, images: Images, expected: [Level; 5]) {
        let levels: Vec<Level> = findings(&probe, images).iter().map(|finding| finding.level).collect();
        assert_eq!(levels[..5], expected, "{probe:?}");
        assert_eq!(levels[5..], [Level::Ok; 3], "{probe:?}");
    }

    #[test]
    fn each_shortcoming_is_one_finding() {
        use Level::{Fail, Ok, Warn};
        assert_levels(good(), Images::Auto, [Ok; 5]);
        for version in ["5.0.9", "unknown", ""] {
            let probe = MongoProbe { version: version.into(), ..good() };
            assert_levels(probe, Images::Auto, [Fail, Ok, Ok, Ok, Ok]);
        }
        assert_levels(MongoProbe { replica_set: None, ..good() }, Images::Auto, [Ok, Fail, Ok, Ok, Ok]);
        let off = MongoProbe { images: Some(false), ..good() };
        assert_levels(off.clone(), Images::Auto, [Ok, Ok, Warn, Ok, Ok]);
        assert_levels(off, Images::Require, [Ok, Ok, Fail, Ok, Ok]);
        assert_levels(MongoProbe { images: None, ..good() }, Images::Require, [Ok; 5]);
        let unread = MongoProbe { oplog_window_secs: None, journal_commit_interval_ms: None, ..good() };
        assert_levels(unread, Images::Auto, [Ok, Ok, Ok, Warn, Warn]);
        let short = MongoProbe { oplog_window_secs: Some(60), full_oplog_window_secs: Some(1800), ..good() };
        assert_levels(short.clone(), Images::Auto, [Ok, Ok, Ok, Warn, Ok]);
        for full_oplog_window_secs in [Some(90_000), None] {
            assert_levels(MongoProbe { full_oplog_window_secs, ..short.clone() }, Images::Auto, [Ok; 5]);
        }
    }

    #[test]
    fn missing_privileges_of_the_user_are_named() {
        let probe =
            MongoProbe { missing_privileges: Some(vec!["changeStream on app.tasks".into()]), ..good() };
        let finding = findings(&probe, Images::Auto).into_iter().find(|one| one.level == Level::Fail);
        let finding = finding.expect("a finding").to_string();
        assert!(finding.starts_with("fail: ") && finding.contains("changeStream on app.tasks"), "{finding}");
        assert_eq!(privileges(None).level, Level::Ok);
    }

    #[test]
    fn a_slow_journal_is_reported_with_the_setting_to_change() {
        assert!(journal(Some(100)).to_string().contains("commitIntervalMs"));
        assert!(!journal(Some(5)).to_string().contains("commitIntervalMs"));
    }
}
