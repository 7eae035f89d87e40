//! The MongoDB store: it reads and writes tasks in the format of the existing backend, and reads their changes from a change stream.
//!
//! All reads and writes go to the primary, with majority concern. A snapshot read returns its cluster time. The snapshot contains a change
//! exactly when the cluster time of the change is not later than the snapshot's. Positions of states and positions of events are therefore
//! comparable.

mod batch_size;
mod batches;
mod bson_json;
mod caught_up;
mod config;
mod counting;
mod dashboard;
mod decode;
mod deliver;
mod facts;
mod failure;
mod follow;
mod ids;
mod indexes;
mod kept_counts;
mod list;
mod meaning;
mod newest;
mod next_answer;
mod numbers;
mod open;
mod ordinals;
mod patience;
mod pipeline;
mod prepare;
mod privileges;
mod probe;
mod read;
mod receiver;
mod runs;
mod select;
mod stream;
mod stream_cursor;
mod tasks;
mod uri;
mod write;

pub use config::{Images, MongoConfig};
#[cfg(any(test, fuzzing))]
pub(crate) use decode::decode_change;
pub use probe::MongoProbe;
pub use tasks::MongoStore;
pub use uri::UriError;
