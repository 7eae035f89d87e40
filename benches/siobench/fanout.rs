//! The scenarios `fanout` and `sweep`: one event goes to many clients.

use std::{error::Error, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{RunState, open},
    load::Load,
    measure::{cpu, print_result},
    options::Options,
};

const STEPS: usize = 7;
/// The pause between two rates that are tried.
const PAUSE: Duration = Duration::from_millis(500);

async fn connected(options: &Rc<Options>) -> Result<(Rc<RunState>, Load), Box<dyn Error>> {
    let state = RunState::new(options);
    let before = cpu(&options.pids);
    let (seconds, _) = open(&state, 0..options.conns).await;
    print_result("connect", state.summary(seconds, cpu(&options.pids) - before));
    if state.ready.get() < options.conns {
        return Err(format!("{} of {} clients connected", state.ready.get(), options.conns).into());
    }
    sleep(PAUSE).await;
    let load = Load::new(&state).await?;
    Ok((state, load))
}

pub async fn fanout(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let (_world, mut load) = connected(&options).await?;
    print_result("fanout", load.at_rate(options.rate, options.warm, options.secs).await?);
    Ok(())
}

/// Searches the highest rate at which nothing is lost and 99 of 100 deliveries arrive in time. The search starts at the rate of the
/// closed loop and halves the interval.
pub async fn sweep(options: Rc<Options>) -> Result<(), Box<dyn Error>> {
    let (_world, mut load) = connected(&options).await?;
    let audience = load.largest_audience() as f64;
    let flat = load.closed_loop(options.warm, options.secs).await?;
    print_result("flat", flat.clone());
    let top = number(&flat, "deliveries_per_s") / audience;
    let (mut low, mut high, mut best) = (0.0, f64::INFINITY, Value::Null);
    let mut rate = top;
    for _ in 0..STEPS {
        sleep(PAUSE).await;
        let result = load.at_rate(rate, 1.0, options.secs).await?;
        let p99 = number(&result["latency_ms"], "p99");
        let is_sustained = result["lost"] == 0 && result["closed"] == 0;
        eprintln!("  {rate:.1} events/s: p99 {p99} ms, sound {is_sustained}");
        if is_sustained && p99 < options.p99 {
            (low, best) = (rate, result);
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
    print_result(
        "sweep",
        json!({"conns": options.conns, "sustained_per_s": (low * audience).round(), "at": best}),
    );
    Ok(())
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_default()
}
