//! The log: one line per event on stderr, whatever the logged texts contain.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
};

use tracing::{Level, Metadata, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    filter::filter_fn,
    fmt::{
        FormatFields, MakeWriter,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LoggingConfig},
    metrics,
};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("RUST_LOG is not a valid filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging has already been set up")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging. It can be called only once per process.
pub fn init(config: &LoggingConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let terminal = io::stderr().is_terminal();
    let format = config.format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_safe));
    let layer = tracing_subscriber::fmt::layer().with_writer(OneLine(io::stderr));
    match format {
        LogFormat::Pretty => registry.with(layer.fmt_fields(fields()).with_ansi(colour)).try_init()?,
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init()?
        }
    }
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// Debug lines of libraries contain tokens, ids that let their holder act as a client, and payloads. Libraries may
/// therefore log only warnings and errors, whatever `RUST_LOG` says.
fn is_safe(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::WARN || line.target().split("::").next() == Some("taskcast")
}

/// A panic's own text may contain data of clients, so only its location is logged.
fn panicked(panic: &PanicHookInfo<'_>) {
    metrics::panicked();
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked: this is a bug");
}

/// Formats fields so that their values can't control a terminal. The default formatter escapes only some values: it
/// does not escape a `%value`.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        format!("{value:?}").chars().try_for_each(|c| match c.is_control() {
            true => write!(writer, "{}", c.escape_default()),
            false => writer.write_char(c),
        })
    };
    debug_fn(field).delimited(" ")
}

/// Keeps an event on one line, and escapes control characters that JSON leaves unescaped. Only ESC passes: the
/// formatter writes it for colours, and the fields contain no ESC any more.
struct OneLine<M>(M);

struct OneLineWriter<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLineWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLineWriter<W> {
    /// Receives an event as a whole. A failed write is not an error: the formatter would report it on the same closed
    /// stderr, and panic.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = line.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
            if c.is_control() && c != '\u{1b}' {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            } else {
                escaped.push(c);
            }
            escaped
        });
        escaped.push('\n');
        let _ = self.0.write_all(escaped.as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(OneLine(move || writer.clone()));
        let layer = layer.with_ansi(false);
        let evil = "x\r\nERROR taskcast: forged\u{1b}[2J\u{9b}31m";
        let log = || {
            tracing::info!(user = %evil, org = ?evil, "refused: {evil}");
            tracing::info!(user = evil, "second");
        };
        if json {
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer.json()), log);
        } else {
            let layer = layer.fmt_fields(fields());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        }
        let bytes = kept.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn libraries_log_only_warnings_and_errors() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(OneLine(move || writer.clone()));
        let registry = tracing_subscriber::registry().with(filter_fn(is_safe));
        tracing::subscriber::with_default(registry.with(layer.with_ansi(false)), || {
            tracing::debug!(target: "tungstenite::protocol", "hidden");
            tracing::info!(target: "taskcastle", "hidden");
            tracing::warn!(target: "tungstenite", "first");
            tracing::trace!(target: "taskcast::gateway", "second");
            tracing::trace!(target: "taskcast", "third");
        });
        let text = String::from_utf8(kept.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn a_logged_text_can_neither_end_its_line_nor_control_a_terminal() {
        for json in [false, true] {
            let text = logged(json);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.ends_with('\n') && text.contains("forged"), "{text}");
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
        let json: serde_json::Value =
            serde_json::from_str(logged(true).lines().next().expect("a line")).expect("JSON");
        assert!(json["fields"]["user"].as_str().expect("text").ends_with("\u{9b}31m"));
    }
}
