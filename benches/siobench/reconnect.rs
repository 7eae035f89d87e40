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
    client::{Client, World, open},
    joins::Joins,
    measure::{cpu, cpu_with_ended, histogram, now, quantiles, rounded, rss, tell},
    options::Options,
};

const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(100);
const WHOLE_WITHIN: u64 = 120_000_000;

pub async fn reconnect(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let world = World::new(&options);
    let (seconds, clients) = open(&world, 0..options.conns).await;
    tell("connect", world.told(seconds, 0.0));
    tell("kill it", json!({}));
    for client in clients {
        client.await?;
    }
    // The line "go <pid>" means that the next server process is ready.
    let line = BufReader::new(stdin()).lines().next_line().await?.unwrap_or_default();
    let pids: Vec<u32> = line.split_whitespace().skip(1).filter_map(|pid| pid.parse().ok()).collect();

    let world = World::new(&options);
    let (before, mongod) = (cpu(&pids), cpu_with_ended(&options.mongod_pid));
    let (begun, tries) = (now(), Rc::new(Cell::new(0_usize)));
    let whole = Rc::new(RefCell::new(histogram()));
    let going: Vec<_> = (0..options.conns)
        .map(|n| {
            let (world, tries, whole) = (world.clone(), tries.clone(), whole.clone());
            spawn_local(async move {
                let (mut client, joins) = (Client::new(n), Joins::again(&world.options, n));
                while now() - begun < WHOLE_WITHIN {
                    match client.connect(&world, &joins).await {
                        Ok(mut ws) => {
                            whole.borrow_mut().record(now() - begun).ok();
                            world.ready.set(world.ready.get() + 1);
                            client.listen(&world, &mut ws).await;
                            return;
                        }
                        Err(error) => {
                            if tries.replace(tries.get() + 1) == 0 {
                                eprintln!("client {n} tries again: {error}");
                            }
                            sleep(BEFORE_ANOTHER_TRY).await;
                        }
                    }
                }
                world.failed.set(world.failed.get() + 1);
            })
        })
        .collect();
    while world.ready.get() + world.failed.get() < going.len() {
        sleep(Duration::from_millis(5)).await;
    }
    let times = whole.borrow();
    let told = json!({
        "conns": options.conns, "whole": world.ready.get(), "again": tries.get(), "seconds": rounded(times.max() as f64 / 1e6), "whole_ms": quantiles(&times),
        "cpu_s": rounded(cpu(&pids) - before), "mongod_cpu_s": rounded(cpu_with_ended(&options.mongod_pid) - mongod), "rss_kib": rss(&pids),
    });
    tell("reconnect", told);
    Ok(())
}
