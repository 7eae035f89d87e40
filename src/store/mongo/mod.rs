//! The MongoDB store: it reads and writes tasks in the format of the existing backend, and reads their changes from a change stream.
//!
//! All reads and writes go to the primary, with majority concern. A snapshot read returns its cluster time. The snapshot contains a change
//! exactly when the cluster time of the change is not later than the snapshot's. Positions of states and positions of events are therefore
//! comparable.

mod batch_size;
mod bson_json;
mod cached_counts;
mod caught_up;
mod config;
mod counting;
mod dashboard;
mod decode;
mod deliver;
mod facts;
mod failure;
mod feed_sender;
mod follow;
mod guarded_write;
mod ids;
mod indexes;
mod keys;
mod last_changes;
mod list;
mod list_query;
mod mongo_store;
mod next_answer;
mod numbers;
mod open;
mod ordinals;
mod pipeline;
mod prepare;
mod privileges;
mod probe;
mod read;
mod request_timeout;
mod runs;
mod select;
mod stream;
mod stream_cursor;
mod task_document;
mod transaction;
mod update;
mod uri;
mod write;
mod write_position;

pub use config::{Images, MongoConfig};
#[cfg(any(test, fuzzing))]
pub(crate) use decode::decode_change;
pub use mongo_store::MongoStore;
pub use probe::MongoProbe;
pub use uri::UriError;
