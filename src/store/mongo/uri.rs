//! Sorts the options of a MongoDB URI: options that the driver reads, options that taskcast ignores, and options that it refuses because
//! ignoring them is dangerous. A URI is often shared with programs in other languages, whose drivers have other options.

use std::fmt;

/// Options that the driver reads.
const SUPPORTED: [&str; 36] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "connectTimeoutMS",
    "directConnection",
    "enableOverloadRetargeting",
    "heartbeatFrequencyMS",
    "journal",
    "loadBalanced",
    "localThresholdMS",
    "maxAdaptiveRetries",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsInsecure",
    "w",
    "wtimeoutMS",
];

/// Options of other drivers that change neither the server, nor the user, nor the security of the connection. They concern other languages,
/// or how a client waits, logs or compresses. Some concern reads and writes, which taskcast always does with majority concern on the
/// primary.
const IGNORED: [&str; 81] = [
    // Options of all drivers: compression, representation of UUIDs, one timeout for everything.
    "compressors",
    "zlibCompressionLevel",
    "uuidRepresentation",
    "timeoutMS",
    "waitQueueTimeoutMS",
    "adaptiveRetries",
    "fsync",
    "j",
    "safe",
    "slaveOk",
    "wtimeout",
    "maxStaleness",
    // Options of the Node driver and Mongoose.
    "useNewUrlParser",
    "useUnifiedTopology",
    "useCreateIndex",
    "useFindAndModify",
    "autoCreate",
    "autoIndex",
    "autoReconnect",
    "autoSelectFamily",
    "autoSelectFamilyAttemptTimeout",
    "bsonRegExp",
    "bufferCommands",
    "bufferMaxEntries",
    "checkKeys",
    "connectWithNoPrimary",
    "domainsEnabled",
    "enableUtf8Validation",
    "family",
    "fieldsAsRaw",
    "forceServerObjectId",
    "ha",
    "haInterval",
    "ignoreUndefined",
    "keepAlive",
    "keepAliveInitialDelay",
    "logger",
    "loggerLevel",
    "minHeartbeatFrequencyMS",
    "monitorCommands",
    "noDelay",
    "numberOfRetries",
    "pkFactory",
    "poolSize",
    "promiseLibrary",
    "promoteBuffers",
    "promoteLongs",
    "promoteValues",
    "raw",
    "reconnectInterval",
    "reconnectTries",
    "secondaryAcceptableLatencyMS",
    "serializeFunctions",
    "useBigInt64",
    "validateOptions",
    // Options of PyMongo.
    "connect",
    "datetime_conversion",
    "document_class",
    "socketKeepAlive",
    "tz_aware",
    "unicode_decode_error_handler",
    // Options of the Java and .NET drivers.
    "connectTimeout",
    "guids",
    "heartbeatInterval",
    "heartbeatTimeout",
    "ipv6",
    "localThreshold",
    "maxIdleTime",
    "maxLifeTime",
    "maxLifeTimeMS",
    "serverSelectionTimeout",
    "socketTimeout",
    "streamType",
    "threadsAllowedToBlockForConnectionMultiplier",
    "waitQueueMultiple",
    "waitQueueSize",
    "waitQueueTimeout",
    // Options of libmongoc.
    "serverSelectionTryOnce",
    "socketCheckIntervalMS",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
];

const TO_CA_FILE: &str = "is not supported: use tlsCAFile instead";
const TO_KEY_FILE: &str =
    "is not supported: use tlsCertificateKeyFile instead, a file with the certificate and its key";
const TO_CERTIFICATES: &str = "is not supported: use tlsAllowInvalidCertificates instead";
const HOST_NAMES: &str =
    "is not supported: the server's name is always checked, unless tlsInsecure=true switches all checks off";
const KEY_PASSWORD: &str =
    "is not supported: tlsCertificateKeyFile must name a file whose key is not encrypted";
const NO_PROXY: &str = "is not supported: the server must be reachable without a proxy";
/// In PyMongo, `connect` says whether the client connects at once. In other drivers, it says how the client finds the servers.
const TO_DIRECT: &str = "is not supported: use directConnection=true instead";
const TO_PROPERTIES: &str = "is not supported: set it in authMechanismProperties instead";
const NO_REVOCATIONS: &str = "is not supported: taskcast does not check certificate revocation lists";
const NO_ENCRYPTION: &str = "is not supported: taskcast does not read encrypted fields";

/// Options that taskcast must not ignore: without them it would use another server, another user or a less secure connection.
const REJECTED: [(&str, &str); 29] = [
    ("tlsAllowInvalidHostnames", HOST_NAMES),
    ("sslAllowInvalidHostnames", HOST_NAMES),
    ("sslInvalidHostNameAllowed", HOST_NAMES),
    ("ssl_match_hostname", HOST_NAMES),
    ("sslAllowInvalidCertificates", TO_CERTIFICATES),
    ("sslInsecure", "is not supported: use tlsInsecure instead"),
    ("sslValidate", TO_CERTIFICATES),
    ("sslVerifyCertificate", TO_CERTIFICATES),
    ("ssl_cert_reqs", TO_CERTIFICATES),
    ("sslCA", TO_CA_FILE),
    ("sslCertificateAuthorityFile", TO_CA_FILE),
    ("ssl_ca_certs", TO_CA_FILE),
    ("sslCert", TO_KEY_FILE),
    ("sslClientCertificateKeyFile", TO_KEY_FILE),
    ("sslKey", TO_KEY_FILE),
    ("ssl_certfile", TO_KEY_FILE),
    ("ssl_keyfile", TO_KEY_FILE),
    ("tlsCertificateFile", TO_KEY_FILE),
    ("tlsPrivateKeyFile", TO_KEY_FILE),
    ("tlsCertificateKeyFilePassword", KEY_PASSWORD),
    ("sslClientCertificateKeyPassword", KEY_PASSWORD),
    ("tlsCRLFile", NO_REVOCATIONS),
    ("proxyHost", NO_PROXY),
    ("proxyPort", NO_PROXY),
    ("proxyUsername", NO_PROXY),
    ("proxyPassword", NO_PROXY),
    ("gssapiServiceName", TO_PROPERTIES),
    ("canonicalizeHostname", TO_PROPERTIES),
    ("autoEncryption", NO_ENCRYPTION),
];

/// The minimum similarity, from 0 to 1, of an unknown name to a known one. Below it, the error suggests no name.
const MIN_SIMILARITY: f64 = 0.84;

/// The reason why the options of a URI can't be used. The error contains no part of the URI, because the URI contains a password. A
/// password that is not percent-encoded may even appear where an option is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// The URI does not have the form `mongodb://…`, or its parts can't be separated.
    Malformed,
    Refused {
        option: &'static str,
        reason: &'static str,
    },
    Unknown {
        /// The position of the option in the list of options, from 1.
        number: usize,
        similar: Option<&'static str>,
    },
    /// Two options are separated by `;` or `?`. The driver would read the second option as a part of the first one's value.
    Semicolon,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str(
                "must be a MongoDB connection string, mongodb://… or mongodb+srv://…, with : / ? # [ ] @ % in the user name and the \
                 password percent-encoded",
            ),
            Self::Refused { option, reason } => write!(f, "its option {option} {reason}"),
            Self::Unknown { number, similar: Some(similar) } => {
                write!(f, "its option number {number} is not known; did you mean {similar}?")
            }
            Self::Unknown { number, similar: None } => {
                write!(f, "its option number {number} is not known; correct its name, or remove it")
            }
            Self::Semicolon => f.write_str("its options must have & between them, not ; or ?"),
        }
    }
}

/// Returns the URI without the ignored options, and the names of these options.
pub(super) fn without_ignored(uri: &str) -> Result<(String, Vec<&'static str>), UriError> {
    let Some((base, query)) = uri.split_once('?') else { return Ok((uri.to_owned(), Vec::new())) };
    let (mut kept, mut ignored) = (Vec::new(), Vec::new());
    for (index, option) in query.split('&').enumerate().filter(|(_, option)| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if has_second_option(value) {
            return Err(UriError::Semicolon);
        }
        if name.eq_ignore_ascii_case("connect") && !matches!(value, "true" | "false") {
            return Err(UriError::Refused { option: "connect", reason: TO_DIRECT });
        }
        if let Some(name) = IGNORED.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
            ignored.push(name);
        } else if SUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            kept.push(option);
        } else {
            return Err(unknown(index + 1, name));
        }
    }
    ignored.dedup();
    let uri = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((uri, ignored))
}

fn unknown(number: usize, name: &str) -> UriError {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return UriError::Malformed;
    }
    let refused = REJECTED.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    if let Some((option, reason)) = refused {
        return UriError::Refused { option, reason };
    }
    let name = name.to_ascii_lowercase();
    let known = SUPPORTED.into_iter().chain(IGNORED).chain(REJECTED.map(|(name, _)| name));
    let similarity = |known: &'static str| (strsim::jaro_winkler(&known.to_ascii_lowercase(), &name), known);
    let best = known.map(similarity).max_by(|(a, _), (b, _)| a.total_cmp(b));
    UriError::Unknown {
        number,
        similar: best.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY).map(|(_, name)| name),
    }
}

/// Returns whether a value contains another option. Old URIs separate options by `;`, and a second `?` is a common mistake. The driver
/// would read `appName=x;tls=true` as a name and would not use TLS.
fn has_second_option(value: &str) -> bool {
    value.split([';', '?']).skip(1).filter_map(|rest| rest.split_once('=')).any(|(name, _)| {
        let all = SUPPORTED.into_iter().chain(IGNORED).chain(REJECTED.map(|(name, _)| name));
        all.into_iter().any(|known| known.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use mongodb::options::ConnectionString;

    use super::*;

    /// A valid value of the option.
    fn value_of(option: &str) -> &'static str {
        match option {
            "authMechanism" => "SCRAM-SHA-256&authSource=admin",
            "authMechanismProperties" => "SERVICE_NAME:x",
            "readPreference" => "nearest",
            "readPreferenceTags" => "dc:ny&readPreference=nearest",
            "maxStalenessSeconds" => "90&readPreference=nearest",
            "serverMonitoringMode" => "poll",
            name if name.starts_with("tls") && name.ends_with("File") => "/x",
            name if name.starts_with("tls") || name.starts_with("retry") => "true",
            "ssl" | "directConnection" | "loadBalanced" | "journal" | "enableOverloadRetargeting" => "true",
            "appName" | "authSource" | "replicaSet" | "srvServiceName" => "x",
            "readConcernLevel" | "w" => "majority",
            _ => "1",
        }
    }

    /// Parses a URI with this option by the driver.
    fn driver(option: &str) -> Result<ConnectionString, String> {
        let scheme = if option.starts_with("srv") { "mongodb+srv" } else { "mongodb" };
        let uri = format!("{scheme}://u:p@host/db?{option}={}", value_of(option));
        ConnectionString::parse(uri).map_err(|error| error.to_string())
    }

    #[test]
    fn the_driver_accepts_every_read_option_and_no_ignored_or_refused_option() {
        for option in SUPPORTED {
            driver(option).unwrap_or_else(|error| panic!("{option}: {error}"));
            let uri = format!("mongodb://host/?{option}={}", value_of(option));
            assert_eq!(without_ignored(&uri), Ok((uri.clone(), Vec::new())));
        }
        // The driver accepts these two options, but they have no effect.
        let without_effect = ["waitQueueTimeoutMS", "uuidRepresentation"];
        for option in IGNORED.into_iter().filter(|option| !without_effect.contains(option)) {
            driver(option).expect_err(option);
        }
        for (option, _) in REJECTED {
            driver(option).expect_err(option);
        }
        let all: Vec<String> = SUPPORTED
            .into_iter()
            .chain(IGNORED)
            .chain(REJECTED.map(|(name, _)| name))
            .map(str::to_lowercase)
            .collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "an option is in one list only");
    }

    #[test]
    fn options_of_other_drivers_are_removed_and_reported() {
        let uri = "mongodb://u:p@a,b/db?USENEWURLPARSER=true&replicaSet=rs0&compressors=zstd,zlib&tls=true&\
                   uuidRepresentation=standard&useUnifiedTopology&tlsCAFile=/ca.pem&";
        let (kept, ignored) = without_ignored(uri).expect("usable");
        assert_eq!(kept, "mongodb://u:p@a,b/db?replicaSet=rs0&tls=true&tlsCAFile=/ca.pem");
        assert_eq!(ignored, ["useNewUrlParser", "compressors", "uuidRepresentation", "useUnifiedTopology"]);
        for (all, none) in
            [("mongodb://a/?compressors=snappy", "mongodb://a/"), ("mongodb://a/db?", "mongodb://a/db")]
        {
            assert_eq!(without_ignored(all).expect("usable").0, none);
        }
        // An application name that Azure uses.
        let azure = "mongodb://u:p%3D%3D@a:10255/?ssl=true&maxIdleTimeMS=120000&appName=@u@";
        assert_eq!(without_ignored(azure), Ok((azure.to_owned(), Vec::new())));
    }

    #[test]
    fn a_mistyped_option_is_an_error_with_a_suggestion() {
        let similar = |options: &str| match without_ignored(&format!("mongodb://host/?w=1&{options}")) {
            Err(UriError::Unknown { number: 2, similar }) => similar,
            other => panic!("{options}: {other:?}"),
        };
        for (typed, meant) in [
            ("tlsCAFil=/x", "tlsCAFile"),
            ("tlss=true", "tls"),
            ("replicaSett=rs0", "replicaSet"),
            ("authsouce=admin", "authSource"),
            ("auth_source=admin", "authSource"),
            ("tlsInsecur=true", "tlsInsecure"),
            ("compresors=zstd", "compressors"),
        ] {
            assert_eq!(similar(typed), Some(meant), "{typed}");
        }
        assert_eq!(similar("hunter2=1"), None);
        assert_eq!(similar("dbName=other"), None);
    }

    #[test]
    fn an_option_that_would_change_the_connection_is_an_error() {
        for (option, reason) in REJECTED {
            let uri = format!("mongodb://host/?{}=x", option.to_uppercase());
            assert_eq!(without_ignored(&uri), Err(UriError::Refused { option, reason }));
        }
        let direct = without_ignored("mongodb://host/?connect=direct");
        assert_eq!(direct, Err(UriError::Refused { option: "connect", reason: TO_DIRECT }));
        assert_eq!(without_ignored("mongodb://host/?connect=false").expect("PyMongo's").1, ["connect"]);
        for uri in [
            "mongodb://h/db?appName=x?tls=true",
            "mongodb://host/?appName=x;tls=true",
            "mongodb://host/?compressors=zstd;authSource=admin",
        ] {
            assert_eq!(without_ignored(uri), Err(UriError::Semicolon), "{uri}");
        }
        without_ignored("mongodb://host/?appName=a;b=c").expect("no option");
    }

    #[test]
    fn an_error_contains_no_part_of_the_uri() {
        for uri in [
            "mongodb://alice:x?hunter2=1@host/db",
            "mongodb://alice:x?hunter2@host/db?w=1",
            "mongodb://host/?hunter2=hunter2",
            "mongodb://host/?tlsCAFil=hunter2&hunter2",
            "mongodb://host/?proxyPassword=hunter2",
            "mongodb://host/?w=hunter2;tls=hunter2",
        ] {
            let error = without_ignored(uri).expect_err(uri).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(without_ignored("mongodb://alice:x?hun/ter2@host/db?w=1"), Err(UriError::Malformed));
    }

    #[test]
    fn the_documentation_names_every_ignored_and_refused_option() {
        let page = include_str!("../../../docs/configuration.md");
        for option in IGNORED.into_iter().chain(REJECTED.map(|(name, _)| name)) {
            assert!(page.contains(&format!("`{option}`")), "{option} is not documented");
        }
    }
}
