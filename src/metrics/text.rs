//! The text exposition format, version 0.0.4.

use prometheus_client::{encoding::text::encode_registry, registry::Registry};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The library writes OpenMetrics, in which a counter `x` has the sample `x_total`. In Prometheus' own format the
/// family is called `x_total`, too, and some readers know only that format.
pub fn encode(registry: &Registry) -> String {
    let mut open = String::new();
    // Writing to a string does not fail.
    let _ = encode_registry(&mut open, registry);
    let mut text = String::with_capacity(open.len() + open.len() / 16);
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let next_is_counter = || lines.clone().peek().is_some_and(|next| is_counter(next));
        match line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            Some((name, help)) if next_is_counter() => {
                text.push_str(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n"));
                lines.next();
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

fn is_counter(line: &str) -> bool {
    line.starts_with("# TYPE ") && line.ends_with(" counter")
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::*;

    #[test]
    fn a_counter_family_has_the_name_of_its_samples() {
        let mut registry = Registry::default();
        registry.register("eaten", "Apples", Counter::<u64>::default());
        registry.register("left", "Apples", Gauge::<i64>::default());
        assert_eq!(
            encode(&registry),
            "# HELP eaten_total Apples.\n# TYPE eaten_total counter\neaten_total 0\n\
             # HELP left Apples.\n# TYPE left gauge\nleft 0\n"
        );
    }
}
