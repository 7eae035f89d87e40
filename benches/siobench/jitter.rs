//! The scenario `jitter`: every client loses its connection from time to time, for some seconds, while events flow. The benchmark
//! measures how many of the missed events arrive later.

use std::{cell::Cell, error::Error, rc::Rc, time::Duration};

use serde_json::json;
use tokio::{
    task::spawn_local,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, RunState},
    joins::Joins,
    load::Load,
    measure::{cpu, now, print_result, quantiles},
    options::{Options, Recovery},
};

const RETRY_DELAY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct ReconnectCounts {
    disconnects: Cell<u64>,
    recovered: Cell<u64>,
    /// Reconnects after which the client received a state instead of the missed events.
    state_instead: Cell<u64>,
    retries: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

pub async fn jitter(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let state = RunState::new(&options);
    let counts = Rc::new(ReconnectCounts::default());
    let (begin, end) = (Rc::new(Cell::new(u64::MAX)), Rc::new(Cell::new(u64::MAX)));
    let clock = now();
    for n in 0..options.conns {
        let (run_state, counts, begin, end) = (state.clone(), counts.clone(), begin.clone(), end.clone());
        spawn_local(async move {
            if let Err(error) = run_client(&run_state, &counts, n, &begin, &end).await {
                run_state.fail(n, &error);
            }
        });
        while n + 1 >= state.ready.get() + state.failed.get() + options.at_once {
            sleep(Duration::from_millis(1)).await;
        }
    }
    while state.ready.get() + state.failed.get() < options.conns {
        sleep(Duration::from_millis(5)).await;
    }
    eprintln!("  all connected after {} ms", (now() - clock) / 1000);
    let mut load = Load::new(&state).await?;
    begin.set(now());
    // No client is disconnected in the last seconds, so that all clients are connected at the end.
    end.set(now() + ((options.secs - options.away) * 1e6) as u64);
    let before = cpu(&options.pids);
    let mut result = load.at_rate(options.rate, 0.0, options.secs).await?;
    let expected = result["expected"].as_u64().unwrap_or_default().max(1);
    result["delivered_percent"] = json!(100.0 * state.stats.borrow().received as f64 / expected as f64);
    result["late_ms"] = quantiles(&state.stats.borrow().reconnect_latency);
    result["cuts"] = json!(counts.disconnects.get());
    result["recovered"] = json!(counts.recovered.get());
    result["state_instead"] = json!(counts.state_instead.get());
    result["again"] = json!(counts.retries.get());
    result["failed"] = json!(state.failed.get());
    result["cpu_s"] = json!(cpu(&options.pids) - before);
    print_result("jitter", result);
    Ok(())
}

async fn run_client(
    state: &RunState,
    counts: &ReconnectCounts,
    n: usize,
    begin: &Cell<u64>,
    end: &Cell<u64>,
) -> std::io::Result<()> {
    let options = &state.options;
    let mut client = Client::new(n);
    // A value in `last` makes the client remember its position from the first packet on.
    client.last = Some(String::new());
    let mut ws = client.connect(state, &Joins::of(options, n)).await?;
    state.ready.set(state.ready.get() + 1);
    let every = (options.every * 1e6) as u64;
    let phase = (n as u64 * every) / options.conns as u64;
    let mut round = 0;
    loop {
        // `begin` is set when all clients are connected.
        let cut_at = begin.get().saturating_add(phase + round * every);
        if begin.get() == u64::MAX {
            timeout(Duration::from_millis(250), client.listen(state, &mut ws)).await.ok();
            continue;
        }
        if cut_at >= end.get() {
            client.listen(state, &mut ws).await;
            state.closed.set(state.closed.get() + 1);
            return Ok(());
        }
        round += 1;
        let remaining = Duration::from_micros(cut_at.saturating_sub(now()));
        timeout(remaining, client.listen(state, &mut ws)).await.ok();
        drop(ws);
        count(&counts.disconnects);
        sleep(Duration::from_secs_f64(options.away)).await;
        ws = reconnect(state, counts, &mut client).await?;
    }
}

async fn reconnect(
    state: &RunState,
    counts: &ReconnectCounts,
    client: &mut Client,
) -> std::io::Result<crate::ws::Ws> {
    let options = &state.options;
    loop {
        let joins = match (options.recovery, &client.last) {
            (Recovery::Since, Some(last)) => Joins::since(options, client.n, last),
            _ => Joins::of(options, client.n),
        };
        match client.connect(state, &joins).await {
            Ok(ws) => {
                count(if client.recovered { &counts.recovered } else { &counts.state_instead });
                return Ok(ws);
            }
            Err(error) => {
                if counts.retries.get() == 0 {
                    eprintln!("client {} tries again: {error}", client.n);
                }
                count(&counts.retries);
                sleep(RETRY_DELAY).await;
            }
        }
    }
}
