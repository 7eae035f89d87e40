//! The scenario `reconnect`: the parent process kills the server and starts it again, and all clients reconnect at once.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    rc::Rc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    task::spawn_local,
    time::sleep,
};

use crate::{
    client::{Client, RunState, open},
    joins::Joins,
    measure::{cpu, cpu_with_ended, histogram, now, print_result, quantiles, rounded, rss},
    options::Options,
};

const RETRY_DELAY: Duration = Duration::from_millis(100);
const RECONNECT_TIMEOUT_MICROS: u64 = 120_000_000;

pub async fn reconnect(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let state = RunState::new(&options);
    let (seconds, clients) = open(&state, 0..options.conns).await;
    print_result("connect", state.summary(seconds, 0.0));
    print_result("kill it", json!({}));
    for client in clients {
        client.await?;
    }
    // The line "go <pid>" means that the next server process is ready.
    let line = BufReader::new(stdin()).lines().next_line().await?.unwrap_or_default();
    let pids: Vec<u32> = line.split_whitespace().skip(1).filter_map(|pid| pid.parse().ok()).collect();

    let state = RunState::new(&options);
    let (before, mongod) = (cpu(&pids), cpu_with_ended(&options.mongod_pid));
    let (started, retries) = (now(), Rc::new(Cell::new(0_usize)));
    let reconnect_times = Rc::new(RefCell::new(histogram()));
    let tasks: Vec<_> = (0..options.conns)
        .map(|n| {
            let (state, retries, reconnect_times) = (state.clone(), retries.clone(), reconnect_times.clone());
            spawn_local(async move {
                let (mut client, joins) = (Client::new(n), Joins::again(&state.options, n));
                while now() - started < RECONNECT_TIMEOUT_MICROS {
                    match client.connect(&state, &joins).await {
                        Ok(mut ws) => {
                            reconnect_times.borrow_mut().record(now() - started).ok();
                            state.ready.set(state.ready.get() + 1);
                            client.listen(&state, &mut ws).await;
                            return;
                        }
                        Err(error) => {
                            if retries.replace(retries.get() + 1) == 0 {
                                eprintln!("client {n} tries again: {error}");
                            }
                            sleep(RETRY_DELAY).await;
                        }
                    }
                }
                state.failed.set(state.failed.get() + 1);
            })
        })
        .collect();
    while state.ready.get() + state.failed.get() < tasks.len() {
        sleep(Duration::from_millis(5)).await;
    }
    let times = reconnect_times.borrow();
    let result = json!({
        "conns": options.conns, "whole": state.ready.get(), "again": retries.get(), "seconds": rounded(times.max() as f64 / 1e6), "whole_ms": quantiles(&times),
        "cpu_s": rounded(cpu(&pids) - before), "mongod_cpu_s": rounded(cpu_with_ended(&options.mongod_pid) - mongod), "rss_kib": rss(&pids),
    });
    print_result("reconnect", result);
    Ok(())
}
