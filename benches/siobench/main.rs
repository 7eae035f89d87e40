//! The load generator. One thread runs thousands of hand-written Socket.IO clients over TCP and writes to MongoDB. The generator prints
//! one JSON line for each measurement. `benches/run.js` starts it; `options.rs` has its arguments.

mod client;
mod fanout;
mod idle;
mod jitter;
mod joins;
mod load;
mod measure;
mod options;
mod packet;
mod reconnect;
mod source;
mod stats;
mod ws;

use std::{error::Error, rc::Rc};

use options::Options;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime::Builder, task::LocalSet};

fn main() -> Result<(), Box<dyn Error>> {
    // Each client needs a file descriptor, so the soft limit is raised to the hard limit.
    let hard_limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard_limit, maximum: hard_limit })?;
    let (scenario, options) = Options::parse(std::env::args().skip(1))?;
    let options = Rc::new(options);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = LocalSet::new().block_on(&runtime, async {
        match scenario.as_str() {
            "idle" => idle::idle(options).await,
            "storms" => idle::storms(options).await,
            "dashboard" => idle::dashboard(options).await,
            "fanout" => fanout::fanout(options).await,
            "sweep" => fanout::sweep(options).await,
            "reconnect" => reconnect::reconnect(options).await,
            "jitter" => jitter::jitter(options).await,
            other => Err(format!("no scenario {other}").into()),
        }
    });
    if let Err(error) = done {
        eprintln!("{scenario}: {error}");
        std::process::exit(1);
    }
    // The process exits without closing ten thousand clients one by one.
    std::process::exit(0);
}
