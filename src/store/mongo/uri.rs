//! The options of a MongoDB URI: those that the driver reads, those that only other drivers know, and those that would be dangerous to
//! leave out. A URI is often shared with programs in other languages.

use std::fmt;

/// Options that the driver reads.
const READ: [&str; 36] = [
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

/// Options of other drivers that change nothing about which server is asked, as whom, and over how safe a connection. They concern other
/// languages, how a client waits, logs or compresses, or reads and writes, which taskcast always does with majority concern and on the primary.
const IGNORED: [&str; 81] = [
    // All drivers: compression, representation of UUIDs, one timeout for everything.
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
    // Node's driver and mongoose.
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
    // PyMongo.
    "connect",
    "datetime_conversion",
    "document_class",
    "socketKeepAlive",
    "tz_aware",
    "unicode_decode_error_handler",
    // Java's and .NET's drivers.
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
    // libmongoc.
    "serverSelectionTryOnce",
    "socketCheckIntervalMS",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
];

const TO_CA_FILE: &str = "is read under its name of today: tlsCAFile";
const TO_KEY_FILE: &str =
    "is read under its name of today: tlsCertificateKeyFile, a file with the certificate and its key";
const TO_CERTIFICATES: &str = "is read under its name of today: tlsAllowInvalidCertificates";
const HOST_NAMES: &str =
    "is not supported: the server's name is always checked, unless tlsInsecure=true switches all checks off";
const KEY_PASSWORD: &str =
    "is not supported: tlsCertificateKeyFile must name a file whose key is not encrypted";
const NO_PROXY: &str = "is not supported: the server must be reachable without a proxy";
/// For PyMongo, `connect` is whether it connects at once. For others, it is how the servers are found.
const TO_DIRECT: &str = "is read under its name of today: directConnection=true";
const TO_PROPERTIES: &str = "is read as a part of authMechanismProperties";
const NO_REVOCATIONS: &str = "is not supported: certificates are not compared with lists of revoked ones";
const NO_ENCRYPTION: &str = "is not supported: taskcast reads no encrypted fields";

/// Options that would change whom taskcast talks to, or how safely, if they were left out.
const REFUSED: [(&str, &str); 29] = [
    ("tlsAllowInvalidHostnames", HOST_NAMES),
    ("sslAllowInvalidHostnames", HOST_NAMES),
    ("sslInvalidHostNameAllowed", HOST_NAMES),
    ("ssl_match_hostname", HOST_NAMES),
    ("sslAllowInvalidCertificates", TO_CERTIFICATES),
    ("sslInsecure", "is read under its name of today: tlsInsecure"),
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

/// How much alike a name and a known one must be for a suggestion, from 0 to 1.
const ALIKE: f64 = 0.84;

/// Why the options of a URI can't be used. No part of the URI is in it: it holds a password, which may stand where an option
/// is expected if it is not percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// Not `mongodb://…` with parts that can be told apart.
    Malformed,
    Refused {
        option: &'static str,
        why: &'static str,
    },
    Unknown {
        /// Its place among the options, from 1.
        place: usize,
        similar: Option<&'static str>,
    },
    /// Options with `;` between them: the driver would take the second for a part of the first one's value.
    Semicolon,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str(
                "must be a MongoDB connection string, mongodb://… or mongodb+srv://…, with : / ? # [ ] @ % in the user name and the \
                 password percent-encoded",
            ),
            Self::Refused { option, why } => write!(f, "its option {option} {why}"),
            Self::Unknown { place, similar: Some(similar) } => {
                write!(f, "its option number {place} is not known; was {similar} meant?")
            }
            Self::Unknown { place, similar: None } => {
                write!(f, "its option number {place} is not known; correct its name, or remove it")
            }
            Self::Semicolon => f.write_str("its options must have & between them, not ; or ?"),
        }
    }
}

/// The URI without the options that are ignored, and their names.
pub(super) fn without_ignored(uri: &str) -> Result<(String, Vec<&'static str>), UriError> {
    let Some((place, query)) = uri.split_once('?') else { return Ok((uri.to_owned(), Vec::new())) };
    let (mut kept, mut ignored) = (Vec::new(), Vec::new());
    for (index, option) in query.split('&').enumerate().filter(|(_, option)| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if has_second_option(value) {
            return Err(UriError::Semicolon);
        }
        if name.eq_ignore_ascii_case("connect") && !matches!(value, "true" | "false") {
            return Err(UriError::Refused { option: "connect", why: TO_DIRECT });
        }
        if let Some(name) = IGNORED.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
            ignored.push(name);
        } else if READ.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            kept.push(option);
        } else {
            return Err(unknown(index + 1, name));
        }
    }
    ignored.dedup();
    let uri = if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
    Ok((uri, ignored))
}

fn unknown(place: usize, name: &str) -> UriError {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return UriError::Malformed;
    }
    let refused = REFUSED.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    if let Some((option, why)) = refused {
        return UriError::Refused { option, why };
    }
    let name = name.to_ascii_lowercase();
    let known = READ.into_iter().chain(IGNORED).chain(REFUSED.map(|(name, _)| name));
    let likeness = |known: &'static str| (strsim::jaro_winkler(&known.to_ascii_lowercase(), &name), known);
    let best = known.map(likeness).max_by(|(a, _), (b, _)| a.total_cmp(b));
    UriError::Unknown {
        place,
        similar: best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, name)| name),
    }
}

/// Old URIs have `;` between options, and a second `?` is an easy mistake. `appName=x;tls=true` would be a name, and no TLS.
fn has_second_option(value: &str) -> bool {
    value.split([';', '?']).skip(1).filter_map(|rest| rest.split_once('=')).any(|(name, _)| {
        let all = READ.into_iter().chain(IGNORED).chain(REFUSED.map(|(name, _)| name));
        all.into_iter().any(|known| known.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use mongodb::options::ConnectionString;

    use super::*;

    /// A value that the option may have.
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

    /// What the driver says of one option.
    fn driver(option: &str) -> Result<ConnectionString, String> {
        let scheme = if option.starts_with("srv") { "mongodb+srv" } else { "mongodb" };
        let uri = format!("{scheme}://u:p@host/db?{option}={}", value_of(option));
        ConnectionString::parse(uri).map_err(|error| error.to_string())
    }

    #[test]
    fn the_driver_reads_the_options_that_it_is_given_and_no_others() {
        for option in READ {
            driver(option).unwrap_or_else(|error| panic!("{option}: {error}"));
            let uri = format!("mongodb://host/?{option}={}", value_of(option));
            assert_eq!(without_ignored(&uri), Ok((uri.clone(), Vec::new())));
        }
        // It takes these, and does nothing with them.
        let without_effect = ["waitQueueTimeoutMS", "uuidRepresentation"];
        for option in IGNORED.into_iter().filter(|option| !without_effect.contains(option)) {
            driver(option).expect_err(option);
        }
        for (option, _) in REFUSED {
            driver(option).expect_err(option);
        }
        let all: Vec<String> = READ
            .into_iter()
            .chain(IGNORED)
            .chain(REFUSED.map(|(name, _)| name))
            .map(str::to_lowercase)
            .collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "an option is in one list only");
    }

    #[test]
    fn options_of_other_drivers_are_left_out_and_named() {
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
        // Azure's name of an application.
        let azure = "mongodb://u:p%3D%3D@a:10255/?ssl=true&maxIdleTimeMS=120000&appName=@u@";
        assert_eq!(without_ignored(azure), Ok((azure.to_owned(), Vec::new())));
    }

    #[test]
    fn a_mistyped_option_is_an_error_with_a_suggestion() {
        let similar = |options: &str| match without_ignored(&format!("mongodb://host/?w=1&{options}")) {
            Err(UriError::Unknown { place: 2, similar }) => similar,
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
    fn what_would_change_the_connection_is_never_left_out() {
        for (option, why) in REFUSED {
            let uri = format!("mongodb://host/?{}=x", option.to_uppercase());
            assert_eq!(without_ignored(&uri), Err(UriError::Refused { option, why }));
        }
        let direct = without_ignored("mongodb://host/?connect=direct");
        assert_eq!(direct, Err(UriError::Refused { option: "connect", why: TO_DIRECT }));
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
    fn an_error_holds_nothing_of_the_uri() {
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
    fn the_documentation_names_them_all() {
        let page = include_str!("../../../docs/configuration.md");
        for option in IGNORED.into_iter().chain(REFUSED.map(|(name, _)| name)) {
            assert!(page.contains(&format!("`{option}`")), "{option} is not documented");
        }
    }
}
