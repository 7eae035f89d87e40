//! Tasks in MongoDB, as the existing backend writes them; their changes by its change stream.
//!
//! Everything is read from and written to the primary, with majority concern. A snapshot read tells its cluster
//! time, and a change is in it exactly when its own cluster time is not later: that is what makes positions of
//! states and of events comparable.

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
