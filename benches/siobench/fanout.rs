//! The scenarios `fanout` and `sweep`: one event goes to many clients.

use std::{error::Error, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{World, open},
    load::Load,
    measure::{cpu, tell},
    options::Options,
};

const STEPS: usize = 7;
/// The pause between two rates that are tried.
const PAUSE: Duration = Duration::from_millis(500);

async fn connected(options: &Rc<Options>) -> Result<(Rc<World>, Load), Box<dyn Error>> {
    let world = World::new(options);
    let before = cpu(&options.pids);
    let (seconds, _) = open(&world, 0..options.conns).await;
    tell("connect", world.told(seconds, cpu(&options.pids) - before));
    if world.ready.get() < options.conns {
        return Err(format!("{} of {} clients connected", world.ready.get(), options.conns).into());
    }
    sleep(PAUSE).await;
    let load = Load::new(&world).await?;
    Ok((world, load))
}

pub async fn fanout(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let (_world, mut load) = connected(&options).await?;
    tell("fanout", load.at_rate(options.rate, options.warm, options.secs).await?);
    Ok(())
}

/// Searches the highest rate at which nothing is lost and 99 of 100 deliveries arrive in time. The search starts at the rate of the
/// closed loop and halves the interval.
pub async fn sweep(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let (_world, mut load) = connected(&options).await?;
    let audience = load.largest_audience() as f64;
    let flat = load.flat_out(options.warm, options.secs).await?;
    tell("flat", flat.clone());
    let top = number(&flat, "deliveries_per_s") / audience;
    let (mut low, mut high, mut best) = (0.0, f64::INFINITY, Value::Null);
    let mut rate = top;
    for _ in 0..STEPS {
        sleep(PAUSE).await;
        let told = load.at_rate(rate, 1.0, options.secs).await?;
        let p99 = number(&told["latency_ms"], "p99");
        let sound = told["lost"] == 0 && told["closed"] == 0;
        eprintln!("  {rate:.1} events/s: p99 {p99} ms, sound {sound}");
        if sound && p99 < options.p99 {
            (low, best) = (rate, told);
        } else {
            high = rate;
        }
        if high - low < 0.05 * high {
            break;
        }
        rate = match (best.is_null(), high.is_finite()) {
            (true, _) => rate * 0.75,
            (false, false) => rate * 1.25,
            (false, true) => f64::midpoint(low, high),
        };
    }
    tell("sweep", json!({"conns": options.conns, "sustained_per_s": (low * audience).round(), "at": best}));
    Ok(())
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_default()
}
