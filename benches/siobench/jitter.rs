//! The scenario `jitter`: every client loses its connection from time to time, for some seconds, while events flow. The benchmark
//! measures how many of the missed events arrive later.

use std::{cell::Cell, error::Error, rc::Rc, time::Duration};

use serde_json::json;
use tokio::{
    task::spawn_local,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, World},
    joins::Joins,
    load::Load,
    measure::{cpu, now, quantiles, tell},
    options::{Options, Recovery},
};

const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Told {
    cuts: Cell<u64>,
    recovered: Cell<u64>,
    /// Reconnects after which the client received a state instead of the missed events.
    state_instead: Cell<u64>,
    again: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

pub async fn jitter(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let world = World::new(&options);
    let told = Rc::new(Told::default());
    let (begin, end) = (Rc::new(Cell::new(u64::MAX)), Rc::new(Cell::new(u64::MAX)));
    let clock = now();
    for n in 0..options.conns {
        let (here, told, begin, end) = (world.clone(), told.clone(), begin.clone(), end.clone());
        spawn_local(async move {
            if let Err(error) = live(&here, &told, n, &begin, &end).await {
                here.fail(n, &error);
            }
        });
        while n + 1 >= world.ready.get() + world.failed.get() + options.at_once {
            sleep(Duration::from_millis(1)).await;
        }
    }
    while world.ready.get() + world.failed.get() < options.conns {
        sleep(Duration::from_millis(5)).await;
    }
    eprintln!("  all connected after {} ms", (now() - clock) / 1000);
    let mut load = Load::new(&world).await?;
    begin.set(now());
    // No client is disconnected in the last seconds, so that all clients are connected at the end.
    end.set(now() + ((options.secs - options.away) * 1e6) as u64);
    let before = cpu(&options.pids);
    let mut result = load.at_rate(options.rate, 0.0, options.secs).await?;
    let expected = result["expected"].as_u64().unwrap_or_default().max(1);
    result["delivered_percent"] = json!(100.0 * world.stats.borrow().got as f64 / expected as f64);
    result["late_ms"] = quantiles(&world.stats.borrow().late);
    result["cuts"] = json!(told.cuts.get());
    result["recovered"] = json!(told.recovered.get());
    result["state_instead"] = json!(told.state_instead.get());
    result["again"] = json!(told.again.get());
    result["failed"] = json!(world.failed.get());
    result["cpu_s"] = json!(cpu(&options.pids) - before);
    tell("jitter", result);
    Ok(())
}

async fn live(
    world: &World,
    told: &Told,
    n: usize,
    begin: &Cell<u64>,
    end: &Cell<u64>,
) -> std::io::Result<()> {
    let options = &world.options;
    let mut client = Client::new(n);
    // A value in `last` makes the client remember its position from the first packet on.
    client.last = Some(String::new());
    let mut ws = client.connect(world, &Joins::of(options, n)).await?;
    world.ready.set(world.ready.get() + 1);
    let every = (options.every * 1e6) as u64;
    let phase = (n as u64 * every) / options.conns as u64;
    let mut round = 0;
    loop {
        // `begin` is set when all clients are connected.
        let cut = begin.get().saturating_add(phase + round * every);
        if begin.get() == u64::MAX {
            timeout(Duration::from_millis(250), client.listen(world, &mut ws)).await.ok();
            continue;
        }
        if cut >= end.get() {
            client.listen(world, &mut ws).await;
            world.closed.set(world.closed.get() + 1);
            return Ok(());
        }
        round += 1;
        let stays = Duration::from_micros(cut.saturating_sub(now()));
        timeout(stays, client.listen(world, &mut ws)).await.ok();
        drop(ws);
        count(&told.cuts);
        sleep(Duration::from_secs_f64(options.away)).await;
        ws = back(world, told, &mut client).await?;
    }
}

async fn back(world: &World, told: &Told, client: &mut Client) -> std::io::Result<crate::ws::Ws> {
    let options = &world.options;
    loop {
        let joins = match (options.recovery, &client.last) {
            (Recovery::Since, Some(last)) => Joins::since(options, client.n, last),
            _ => Joins::of(options, client.n),
        };
        match client.connect(world, &joins).await {
            Ok(ws) => {
                count(if client.recovered { &told.recovered } else { &told.state_instead });
                return Ok(ws);
            }
            Err(error) => {
                if told.again.get() == 0 {
                    eprintln!("client {} tries again: {error}", client.n);
                }
                count(&told.again);
                sleep(BEFORE_ANOTHER_TRY).await;
            }
        }
    }
}
