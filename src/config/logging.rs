//! Settings of the log: its format and its filter.

use tracing_subscriber::EnvFilter;

use super::reader::Reader;

#[derive(Clone, Debug)]
pub struct LoggingConfig {
    /// `None` means pretty on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// A filter that is known to parse.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl LoggingConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let filter = reader.parse(
            "RUST_LOG",
            "comma-separated levels (error, warn, info, debug, trace, off), alone or as target=level",
            |text| EnvFilter::builder().parse(text).ok().map(|_| text.to_owned()),
        );
        Self {
            format: reader.choice("LOG_FORMAT", &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)]),
            filter: filter.unwrap_or_default(),
        }
    }
}
