//! Settings of activity events.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::activity::{Registry, UnknownTypes};

use super::reader::Reader;

/// A schema file has at most this size.
const MAX_FILE_BYTES: u64 = 1 << 20;
const SCHEMAS: &str = "ACTIVITY_SCHEMAS";

#[derive(Clone, Debug)]
pub struct ActivityConfig {
    pub enabled: bool,
    pub retention: Duration,
    pub high_volume_retention: Duration,
    /// How many events one user may report per second.
    pub rate_per_second: u32,
    pub registry: Arc<Registry>,
}

impl ActivityConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let choices = [("reject", UnknownTypes::Reject), ("accept", UnknownTypes::Accept)];
        let unknown = reader.choice("ACTIVITY_UNKNOWN_TYPES", &choices).unwrap_or_default();
        let files = reader.check(SCHEMAS, |folder| read_folder(Path::new(folder))).unwrap_or_default();
        let files = files.iter().map(|(name, text)| (&**name, &**text));
        let registry = Registry::with_files(unknown, files).unwrap_or_else(|errors| {
            errors.iter().for_each(|error| reader.problem(SCHEMAS, error.to_string()));
            Registry::default()
        });
        let range = Duration::from_secs(60)..=Duration::from_secs(10 * 366 * 24 * 60 * 60);
        let retention = reader.duration("ACTIVITY_RETENTION", range.clone());
        let high_volume_retention = reader.duration("ACTIVITY_HIGH_VOLUME_RETENTION", range);
        if high_volume_retention > retention && retention > Duration::ZERO {
            reader.problem("ACTIVITY_HIGH_VOLUME_RETENTION", "must not be longer than ACTIVITY_RETENTION");
        }
        Self {
            enabled: reader.bool("FEATURE_ACTIVITY"),
            retention,
            high_volume_retention,
            rate_per_second: reader.number("ACTIVITY_RATE_PER_SECOND", 1..=100_000).unwrap_or_default(),
            registry: Arc::new(registry),
        }
    }
}

/// The names and texts of the files `*.json` of a folder, in the order of their names.
fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let failed = |error: io::Error| format!("must be a folder that can be read ({})", error.kind());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = read_file(&path).map_err(|reason| format!("{name} {reason}"))?;
            files.push((name, text));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("can't be opened ({})", error.kind()))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    match read.map_err(|error| format!("can't be read as UTF-8 ({})", error.kind()))? as u64 {
        0..=MAX_FILE_BYTES => Ok(text),
        _ => Err(format!("is larger than {MAX_FILE_BYTES} bytes")),
    }
}
