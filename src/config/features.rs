//! Which features are enabled.

use super::{Backend, StoreConfig, reader::Reader};

#[derive(Clone, Debug)]
pub struct FeaturesConfig {
    pub websocket: bool,
    pub dashboard: bool,
    pub task_detail: bool,
    /// `/ws`.
    pub plain_websocket: bool,
    pub task_api: TaskApi,
}

/// The requests that `/api/tasks` accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskApi {
    Off,
    Read,
    Full,
}

impl TaskApi {
    pub fn reads(self) -> bool {
        self != Self::Off
    }

    pub fn writes(self) -> bool {
        self == Self::Full
    }
}

impl FeaturesConfig {
    pub(super) fn read(reader: &mut Reader<'_>, store: &StoreConfig) -> Self {
        let choices = [("off", TaskApi::Off), ("read", TaskApi::Read), ("full", TaskApi::Full)];
        Self {
            websocket: reader.bool("FEATURE_WEBSOCKET_ENABLED"),
            dashboard: reader.bool("FEATURE_WEBSOCKET_DASHBOARD"),
            task_detail: reader.bool("FEATURE_WEBSOCKET_TASK_DETAIL"),
            plain_websocket: reader.bool("FEATURE_PLAIN_WEBSOCKET"),
            // With MongoDB, another backend creates the tasks.
            task_api: reader.choice("FEATURE_TASK_API", &choices).unwrap_or(match store.backend {
                Backend::Embedded(_) => TaskApi::Full,
                Backend::Mongo(_) => TaskApi::Read,
            }),
        }
    }
}
