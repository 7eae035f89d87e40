use std::{collections::BTreeSet, ffi::OsString, net::IpAddr, time::Duration};

use super::{reader::Reader, *};
use crate::{
    auth::{Grant, UnixTime},
    store::Images,
};

/// Settings in the environment.
fn env(pairs: &[(&str, &str)]) -> Sources {
    Sources::default()
        .with_env(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

#[track_caller]
fn read(pairs: &[(&str, &str)]) -> Config {
    let keyed = [&[("JWT_SECRET", "bench-secret")], pairs].concat();
    Config::read(&env(&keyed)).expect("usable settings")
}

#[track_caller]
fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    let error = Config::read(&env(pairs)).expect_err("unusable settings");
    error.0.iter().map(Problem::to_string).collect()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = read(&[]);
    assert_eq!(config.server.host, IpAddr::from([0, 0, 0, 0]));
    assert_eq!((config.server.port, config.server.admin_port), (3000, None));
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(10));
    assert!(config.server.trusted_proxies.is_empty() && config.server.metrics_token.is_none());
    assert!(
        matches!(&config.store.backend, Backend::Embedded(store) if store.data_dir == config.store.data_dir)
    );
    assert_eq!(config.store.data_dir.to_str(), Some("./data"));
    assert_eq!(config.store.default_org.0, None);
    assert_eq!(config.auth.claims, crate::auth::ClaimNames::default());
    assert_eq!((&config.auth.issuer, &config.auth.audience), (&None, &None));
    assert_eq!(config.auth.max_token_bytes, crate::auth::DEFAULT_MAX_TOKEN_BYTES);
    assert_eq!(config.origins.iter().collect::<Vec<_>>(), ["http://localhost:5173"]);
    assert!(config.webhook.secrets.is_empty());
    let features = &config.features;
    assert!(features.websocket && features.dashboard && features.task_detail);
    assert_eq!(features.task_api, TaskApi::Full);
    let limits = &config.limits;
    assert_eq!((limits.join_rate_per_second, limits.max_connections_per_user), (10, 50));
    assert_eq!((limits.max_rooms_per_socket, limits.max_message_bytes), (200, 65536));
    assert_eq!((limits.dashboard_limit, limits.send_queue), (500, 4096));
    assert_eq!(limits.dashboard_shape, DashboardShape::Array);
    assert_eq!(limits.slow_client_timeout, Duration::from_secs(10));
    assert_eq!(config.heartbeat.interval, Duration::from_secs(25));
    assert_eq!(config.heartbeat.timeout, Duration::from_secs(20));
    assert_eq!((config.logging.format, config.logging.filter.as_str()), (None, "info"));
}

#[test]
fn with_mongodb_the_task_api_is_read_only_by_default() {
    let config = read(&[("MONGODB_URI", "mongodb://db/tasks"), ("MONGODB_IMAGES", "require")]);
    let Backend::Mongo(mongo) = config.store.backend else { panic!("{:?}", config.store) };
    assert_eq!((mongo.database, mongo.collection.as_str()), (None, "tasks"));
    assert_eq!(mongo.images, Images::Require);
    assert_eq!(config.features.task_api, TaskApi::Read);
    let config = read(&[("MONGODB_URI", "mongodb+srv://db"), ("FEATURE_TASK_API", "full")]);
    assert_eq!(config.features.task_api, TaskApi::Full);
}

#[test]
fn flags_come_before_the_environment_before_dotenv_before_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(".env");
    let text = "\u{feff}# a comment\nPORT=1\nexport PING_INTERVAL=1s\nSEND_QUEUE='100'\nSEND_QUEUE=200\n\
                DASHBOARD_LIMIT=\nJWT_SECRET=\"from the file\"\n";
    std::fs::write(&path, text).expect("written");
    let sources = Sources::new([("PORT".to_owned(), "3".to_owned()), ("SEND_QUEUE".into(), String::new())])
        .with_env([("PORT".into(), "2".into()), ("PING_INTERVAL".into(), "2s".into())])
        .with_dotenv(&path)
        .expect("a good file");
    let config = Config::read(&sources).expect("usable settings");
    assert_eq!(config.server.port, 3);
    assert_eq!(config.heartbeat.interval, Duration::from_secs(2));
    assert_eq!(config.limits.send_queue, 200);
    assert_eq!(config.limits.dashboard_limit, 500);
    assert!(matches!(&config.auth.keys, KeySource::Secret(secret) if secret.expose() == "from the file"));
    assert!(std::env::var_os("SEND_QUEUE").is_none(), "the process's environment is left alone");

    Sources::default().with_dotenv(&folder.path().join("absent")).expect("none is fine");
}

/// The error of a `.env` that can't be read.
#[track_caller]
fn dotenv_error(content: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(".env");
    std::fs::write(&path, content).expect("written");
    let error = Sources::default().with_dotenv(&path).expect_err("a bad file").to_string();
    assert!(error.contains("\n  .env: ") && !error.contains("hunter2"), "{error}");
    error
}

#[test]
fn lines_of_dotenv_that_can_not_be_read_are_named_by_number_and_never_shown() {
    let one = dotenv_error(b"PORT=1\nhunter2 hunter2\n");
    assert!(one.contains(".env: line 2 is not NAME=value"), "{one}");
    let two = dotenv_error(b"hunter2\r\nPORT=1\r\nJWT_SECRET hunter2\r\n");
    assert!(two.contains(".env: lines 1, 3 are not NAME=value"), "{two}");
    let many = dotenv_error("hunter2\n".repeat(15).as_bytes());
    assert!(many.contains("lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more are"), "{many}");
    let latin = dotenv_error(b"PORT=1\nJWT_SECRET=hunter2\xff\n");
    assert!(latin.contains("line 2 is not UTF-8"), "{latin}");
    let wide: Vec<u8> = "\u{feff}PORT=1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(dotenv_error(&wide).contains("UTF-16"));
}

/// Settings in a `.env` file.
fn dotenv(content: &str) -> Sources {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(".env");
    std::fs::write(&path, content).expect("written");
    Sources::default().with_dotenv(&path).expect("a good file")
}

#[test]
fn a_secret_in_dotenv_is_read_as_it_is_written() {
    for (line, secret) in [
        (r#"JWT_SECRET="aB3$xY""#, "aB3$xY"),
        (r#"JWT_SECRET=aB3$xY${HOME}\$\n"#, r"aB3$xY${HOME}\$\n"),
        (r#"JWT_SECRET='aB3$xY#z'"#, "aB3$xY#z"),
        ("PORT=1\nJWT_SECRET=$PORT", "$PORT"),
    ] {
        let config = Config::read(&dotenv(line)).expect("usable");
        assert!(matches!(&config.auth.keys, KeySource::Secret(read) if read.expose() == secret), "{line}");
    }
}

#[test]
fn doubtful_values_in_dotenv_cause_warnings_without_the_value() {
    let long = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let warnings = |text: &str| {
        let warnings = Config::read(&dotenv(text)).expect("usable").warnings;
        assert!(warnings.iter().all(|warning| !warning.contains("hunter2")), "{warnings:?}");
        warnings
    };
    assert!(warnings(&format!("JWT_SECRET='{long}#$x'\n# OTHER='x\nOTHER=a#b\n")).is_empty());
    let comment = warnings(&format!("\nJWT_SECRET={long}#x\n"));
    assert!(
        comment.len() == 1 && comment[0].starts_with("JWT_SECRET in line 2 of .env ends before a #"),
        "{comment:?}"
    );
    let quote = warnings(&format!("JWT_SECRET=\"{long}\n"));
    assert!(
        quote.len() == 1 && quote[0].starts_with("JWT_SECRET in line 1 of .env begins with a quote"),
        "{quote:?}"
    );
    // Only the last line of a name causes a warning.
    assert!(warnings(&format!("JWT_SECRET={long}#x\nJWT_SECRET={long}\n")).is_empty());
}

#[test]
fn an_older_name_is_read_where_the_newer_one_is_unset() {
    let origins = |pairs| read(pairs).origins.iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(origins(&[("FRONTEND_URL", "https://old.test")]), ["https://old.test"]);
    assert_eq!(
        origins(&[("FRONTEND_URL", "https://old.test"), ("WEBSOCKET_CORS_ORIGIN", "")]),
        ["https://old.test"]
    );
    assert_eq!(
        origins(&[("FRONTEND_URL", "https://old.test"), ("WEBSOCKET_CORS_ORIGIN", "https://New.test/")]),
        ["https://new.test"]
    );
}

#[test]
fn all_bad_settings_are_reported_at_once() {
    let text = Config::read(&env(&[
        ("HOST", "nowhere.example"),
        ("PORT", "70000"),
        ("ADMIN_PORT", "-1"),
        ("SHUTDOWN_GRACE", "10"),
        ("MONGODB_IMAGES", "maybe"),
        ("REDIS_URL", "redis://:hunter2@cache"),
        ("WEBSOCKET_CORS_ORIGIN", "*,app.example.com"),
        ("FEATURE_WEBSOCKET_ENABLED", "maybe"),
        ("SEND_QUEUE", "63"),
        ("RUST_LOG", "taskcast=loud"),
    ]))
    .expect_err("unusable settings")
    .to_string();
    assert_eq!(
        text,
        "the settings can't be used\n  \
         HOST: must be an IP address or localhost\n  \
         PORT: must be a whole number from 0 to 65535\n  \
         ADMIN_PORT: must be a whole number from 0 to 65535\n  \
         SHUTDOWN_GRACE: must be a duration with its unit, such as 500ms, 10s or 1m, from 0s to 1h\n  \
         MONGODB_IMAGES: must be auto or require\n  \
         REDIS_URL: needs MONGODB_URI, because nodes share their tasks in MongoDB\n  \
         JWT_SECRET: this, JWT_PUBLIC_KEY or JWT_JWKS_URL must be set; for development a secret is generated where HOST is a \
         loopback address or TASKCAST_DEV is 1\n  \
         FEATURE_WEBSOCKET_ENABLED: must be true or false\n  \
         WEBSOCKET_CORS_ORIGIN: must not contain *: any page that a user visits could connect; name each \
         origin\n  \
         WEBSOCKET_CORS_ORIGIN: must be comma-separated origins without a path, such as \
         https://app.example.com or http://localhost:5173\n  \
         SEND_QUEUE: must be a whole number from 64 to 1048576\n  \
         RUST_LOG: must be comma-separated levels (error, warn, info, debug, trace, off), alone or as \
         target=level"
    );
}

#[test]
fn every_setting_can_be_refused_and_no_error_shows_its_value() {
    // No setting accepts this value, except those that accept any text.
    let bad = "hunter2=\u{1}$ /";
    let free = ["DATA_DIR", "JWT_SECRET", "JWT_ISSUER", "JWT_AUDIENCE", "GITHUB_WEBHOOK_SECRET"];
    for setting in table::all().filter(|setting| !free.contains(&setting.name)) {
        if setting.name.ends_with("_CLAIM") {
            continue;
        }
        let keyless =
            if setting.name == "TASKCAST_DEV" { ("HOST", "127.0.0.1") } else { ("TASKCAST_DEV", "1") };
        let problems_found = problems(&[keyless, (setting.name, bad)]);
        assert_eq!(problems_found.len(), 1, "{problems_found:?}");
        assert!(
            problems_found[0].starts_with(setting.name) && !problems_found[0].contains("hunter2"),
            "{problems_found:?}"
        );
        let pairs = [(OsString::from(setting.name), OsString::from(bad))];
        let shown = format!("{:?}", Sources::default().with_env(pairs));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(problems(&[("TASKCAST_DEV", "1"), ("GITHUB_WEBHOOK_SECRET", " , ")]).len(), 1);
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8_is_reported_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let sources = Sources::default().with_env([
        ("TASKCAST_DEV".into(), "1".into()),
        ("JWT_ISSUER".into(), OsString::from_vec(vec![b'a', 0xff])),
    ]);
    let error = Config::read(&sources).expect_err("unusable");
    assert_eq!(error.to_string(), "the settings can't be used\n  JWT_ISSUER: must be valid UTF-8");
}

#[test]
fn ranges_and_relations_are_checked() {
    for (name, value) in [
        ("MAX_CONNECTIONS_PER_USER", "0"),
        ("MAX_ROOMS_PER_SOCKET", "0"),
        ("MAX_MESSAGE_BYTES", "1023"),
        ("MAX_MEMORY_BYTES", "1000"),
        ("DASHBOARD_LIMIT", "0"),
        ("TIMELINE_LIMIT", "0"),
        ("JOIN_RATE_PER_SECOND", "0"),
        ("JOIN_RATE_PER_SECOND", "1.5"),
        ("SEND_QUEUE", "99999999999999999999"),
        ("PING_INTERVAL", "0s"),
        ("PING_TIMEOUT", "99ms"),
        ("SLOW_CLIENT_TIMEOUT", "2h"),
        ("ADMIN_PORT", "3000"),
        ("MONGODB_URI", "mongodb://a:b/c@d"),
        ("MONGODB_URI", "http://db"),
        ("REDIS_URL", "http://cache"),
        ("MONGODB_DB", "a.b"),
        ("MONGODB_TASKS_COLLECTION", "system.users"),
        ("METRICS_TOKEN", "two words"),
        ("TRUSTED_PROXIES", "10.0.0.0/40"),
    ] {
        let problems_found = problems(&[("JWT_SECRET", "bench-secret"), (name, value)]);
        assert!(
            problems_found.len() == 1 && problems_found[0].starts_with(name),
            "{name}={value}: {problems_found:?}"
        );
    }
    assert_eq!(read(&[("PORT", "0"), ("ADMIN_PORT", "0")]).server.admin_port, Some(0));
    assert_eq!(read(&[("SHUTDOWN_GRACE", "0s")]).server.shutdown_grace, Duration::ZERO);
}

#[test]
fn exactly_one_kind_of_key_may_be_configured() {
    const KEY: &str = include_str!("../auth/testdata/p256.pub.pem");
    let both = problems(&[("JWT_SECRET", "bench-secret"), ("JWT_PUBLIC_KEY", KEY)]);
    assert!(both.len() == 1 && both[0].contains("exactly one"), "{both:?}");
    let all =
        problems(&[("JWT_SECRET", "x"), ("JWT_PUBLIC_KEY", KEY), ("JWT_JWKS_URL", "https://id.test/keys")]);
    assert!(all.len() == 2 && all[1].starts_with("JWT_JWKS_URL"), "{all:?}");
    let fetched = Config::read(&env(&[("JWT_JWKS_URL", " https://id.test/keys ")])).expect("usable");
    assert!(matches!(fetched.auth.keys, KeySource::Fetched(_)));
    assert!(fetched.tokens().expect("keys").signer.is_none());
    for bad in ["id.test/hunter2", "http://id.test/hunter2", "https://hunter2@id.test/keys"] {
        let problems_found = problems(&[("JWT_JWKS_URL", bad)]);
        assert!(
            problems_found.len() == 1
                && problems_found[0].starts_with("JWT_JWKS_URL")
                && !problems_found[0].contains("hunter2"),
            "{problems_found:?}"
        );
    }

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key.pem");
    std::fs::write(&path, KEY).expect("written");
    for text in [KEY, &KEY.replace('\n', "\\n"), &format!("@{}", path.display())] {
        let config = Config::read(&env(&[("JWT_PUBLIC_KEY", text)])).expect("usable");
        assert!(matches!(&config.auth.keys, KeySource::PublicKey(keys) if keys.algorithm() == "ES256"));
        assert!(config.tokens().expect("keys").signer.is_none());
    }
    let missing = problems(&[("JWT_PUBLIC_KEY", "@/hunter2/absent")]);
    assert!(missing[0].contains("file can't be read") && !missing[0].contains("hunter2"), "{missing:?}");
}

#[test]
fn the_verifier_uses_the_configured_longest_token() {
    for (text, bytes) in [("1024", 1024), ("8192", 8192), ("65536", 65_536)] {
        let config = read(&[("MAX_TOKEN_BYTES", text)]);
        assert_eq!(config.tokens().expect("keys").verifier.max_token_bytes, bytes);
    }
    for text in ["1023", "65537", "0", "-1", "8KiB", "1e4"] {
        let problems_found = problems(&[("JWT_SECRET", "bench-secret"), ("MAX_TOKEN_BYTES", text)]);
        assert_eq!(problems_found, ["MAX_TOKEN_BYTES: must be a whole number from 1024 to 65536"]);
    }
}

#[test]
fn a_short_secret_causes_a_warning() {
    assert_eq!(read(&[]).warnings.len(), 1);
    let long = "x".repeat(32);
    assert!(read(&[("JWT_SECRET", &long)]).warnings.is_empty());
}

#[test]
fn options_of_a_mongodb_uri_that_only_other_drivers_know_cause_one_warning() {
    let long = "x".repeat(32);
    let with = |uri: &str| [("JWT_SECRET", long.clone()), ("MONGODB_URI", uri.to_owned())];
    let read = |uri: &str| {
        let pairs = with(uri);
        let config =
            Config::read(&env(&pairs.each_ref().map(|(name, value)| (*name, &**value)))).expect("usable");
        let Backend::Mongo(mongo) = config.store.backend else { panic!("{:?}", config.store) };
        (mongo.database_name().expect("usable"), config.warnings)
    };
    let uri = "mongodb://u:hunter2@db/app?compressors=zstd&replicaSet=rs0&uuidRepresentation=standard&useNewUrlParser=true";
    let (database, warnings) = read(uri);
    assert_eq!(database, "app");
    assert!(
        warnings.len() == 1
            && warnings[0].contains(": compressors, uuidRepresentation, useNewUrlParser; remove"),
        "{warnings:?}"
    );
    assert_eq!(read("mongodb://db/app?replicaSet=rs0").1, Vec::<String>::new());
    for (option, expected) in [
        ("tlsCAFil=/x", "its option number 2 is not known; did you mean tlsCAFile?"),
        ("tlsAllowInvalidHostnames=true", "its option tlsAllowInvalidHostnames is not supported"),
        ("ssl=maybe", "must be a MongoDB connection string"),
    ] {
        let pairs = with(&format!("mongodb://u:hunter2@db/?w=1&{option}"));
        let problems = problems(&pairs.each_ref().map(|(name, value)| (*name, &**value)));
        assert!(
            problems.len() == 1 && problems[0].contains(expected) && !problems[0].contains("hunter2"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_secret_is_generated_only_for_development() {
    for pairs in [&[][..], &[("HOST", "192.0.2.1")], &[("TASKCAST_DEV", "0")], &[("HOST", "::")]] {
        assert_eq!(problems(pairs).len(), 1, "{pairs:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    for pair in [
        ("HOST", "127.0.0.1"),
        ("HOST", "127.8.9.1"),
        ("HOST", "localhost"),
        ("HOST", "[::1]"),
        ("TASKCAST_DEV", "1"),
    ] {
        let config = Config::read(&env(&[pair, ("DATA_DIR", data)])).expect("usable");
        assert!(matches!(&config.auth.keys, KeySource::Generated(path) if path.starts_with(data)));
        let (first, second) = (config.tokens().expect("made"), config.tokens().expect("kept"));
        let grant =
            Grant { user: "dev".into(), org: None, name: None, scope: None, ttl: Duration::from_secs(60) };
        let now = UnixTime::now();
        let token = first.signer.expect("HS256").sign(&grant, now).expect("signed");
        second.verifier.verify(&token, now).expect("the same secret");
    }
}

#[test]
fn debug_output_contains_no_secret() {
    let config = read(&[
        ("MONGODB_URI", "mongodb://user:hunter2@db"),
        ("JWT_SECRET", "hunter2-hunter2"),
        ("GITHUB_WEBHOOK_SECRET", "hunter2,hunter2b"),
        ("METRICS_TOKEN", "hunter2"),
    ]);
    assert_eq!(config.webhook.secrets.len(), 2);
    let shown = format!("{config:?} {:?}", config.tokens().expect("keys"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_row_of_the_table_is_read_and_every_default_is_valid() {
    let sources = env(&[("TASKCAST_DEV", "1")]);
    let mut reader = Reader::new(&sources);
    Config::read_with(&mut reader);
    let names_read: BTreeSet<&str> = reader.names_read.iter().copied().collect();
    assert_eq!(names_read, table::all().map(|setting| setting.name).collect());
    reader.finish(()).expect("good defaults");
}

/// Names at the beginning of lines such as `# PORT=3000`.
fn documented_in_dotenv_example() -> Vec<(&'static str, &'static str)> {
    include_str!("../../.env.example")
        .lines()
        .filter_map(|line| line.strip_prefix("# ").unwrap_or(line).split_once('='))
        .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect()
}

#[test]
fn the_example_names_the_settings_of_the_table_with_their_defaults() {
    let documented = documented_in_dotenv_example();
    let names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, table::all().map(|setting| setting.name).collect::<Vec<_>>());
    for (setting, (name, value)) in table::all().zip(documented) {
        assert_eq!(value, setting.default.unwrap_or_default(), "{name}");
    }
}

#[test]
fn the_documentation_names_every_setting_with_its_default() {
    let text = include_str!("../../docs/configuration.md");
    for setting in table::all() {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", setting.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not documented", setting.name));
        assert!(
            row.contains(&format!("| `{}` |", setting.shown_default()))
                || row.contains(&format!("| {} |", setting.shown_default())),
            "{row}"
        );
        assert!(setting.alias.is_none_or(|alias| row.contains(alias)), "{row}");
    }
}
