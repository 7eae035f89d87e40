//! Measures how fast a counter grows.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Seconds over which a rate is averaged.
const WINDOW: usize = 5;

/// The counter's last values, one a second.
#[derive(Debug, Default)]
pub struct Throughput(Mutex<VecDeque<u64>>);

impl Throughput {
    /// The caller calls this once per second.
    pub fn sample(&self, total: u64) {
        let mut samples = self.0.lock();
        if samples.len() > WINDOW {
            samples.pop_front();
        }
        samples.push_back(total);
    }

    /// The average over the last full seconds.
    pub fn per_second(&self) -> f64 {
        let samples = self.0.lock();
        match (samples.front(), samples.back()) {
            (Some(first), Some(last)) if samples.len() > 1 => {
                last.saturating_sub(*first) as f64 / (samples.len() - 1) as f64
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_of_the_last_full_seconds() {
        let throughput = Throughput::default();
        assert_eq!(throughput.per_second(), 0.0);
        throughput.sample(10);
        assert_eq!(throughput.per_second(), 0.0, "there is no full second yet");
        throughput.sample(14);
        assert_eq!(throughput.per_second(), 4.0);
        for total in [100, 200, 300, 400, 500, 600] {
            throughput.sample(total);
        }
        assert_eq!(throughput.per_second(), 100.0, "values before the window do not count");
    }
}
