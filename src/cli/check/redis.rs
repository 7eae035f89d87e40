//! Checks that nodes can communicate through Redis.

use crate::cluster::{ClusterConfig, LinkError, RedisProbe, probe};

use super::{Finding, clock::check_clock};

const NO_EVICTION: &str = "noeviction";
const WITHOUT_REDIS: &str = "without Redis the gateway continues, but the nodes do not know of each other";

pub(super) async fn check_redis(config: &ClusterConfig) -> Vec<Finding> {
    match probe(config).await {
        Ok(probe) => findings(&probe),
        Err(error @ LinkError::TooOld(_)) => vec![too_old(error.to_string())],
        Err(error) => {
            let fix = format!("{}; {WITHOUT_REDIS}", fix_for(&error));
            vec![Finding::fail(error.to_string(), fix)]
        }
    }
}

fn fix_for(error: &LinkError) -> &'static str {
    match error {
        LinkError::Denied(_) => {
            "check user and password of REDIS_URL, and what the server's ACL allows that user (docs/cluster.md)"
        }
        LinkError::Untrusted(_) => {
            "use a server name in REDIS_URL that is in the server's certificate; if a private authority has signed the certificate, \
             set SSL_CERT_FILE to a PEM file with the authority's certificate"
        }
        _ => "check REDIS_URL, that the server runs, and that it can be reached from here",
    }
}

fn findings(probe: &RedisProbe) -> Vec<Finding> {
    let version = match probe.is_recent {
        true => Finding::ok(format!("Redis {} answers", probe.version)),
        false => too_old(format!("Redis {} is too old", probe.version)),
    };
    let eviction = match probe.eviction.as_deref() {
        Some(NO_EVICTION) => {
            Finding::ok("Redis evicts no keys when its memory is full (maxmemory-policy noeviction)")
        }
        Some(policy) => Finding::warn(
            format!("Redis evicts keys when its memory is full (maxmemory-policy {policy})"),
            "give taskcast a Redis with maxmemory-policy noeviction: taskcast keeps little data there",
        ),
        None => Finding::warn(
            "taskcast can't read what Redis does when its memory is full",
            "set maxmemory-policy noeviction",
        ),
    };
    vec![version, eviction, check_clock("Redis", probe.clock)]
}

fn too_old(text: String) -> Finding {
    Finding::fail(text, "upgrade it to 7.0 or newer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::check::Level,
        task::{ClockReading, Timestamp},
    };

    #[test]
    fn each_shortcoming_is_one_finding() {
        use Level::{Fail, Ok, Warn};
        let now = Timestamp::now();
        let clock = Some(ClockReading { before: now, remote: now, after: now });
        let eviction = Some("noeviction".into());
        let good = RedisProbe { version: "7.0.15".into(), is_recent: true, eviction, clock };
        let levels = |probe| findings(&probe).iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(levels(good.clone()), [Ok, Ok, Ok]);
        assert_eq!(levels(RedisProbe { is_recent: false, ..good.clone() }), [Fail, Ok, Ok]);
        assert_eq!(
            levels(RedisProbe { eviction: Some("allkeys-lru".into()), ..good.clone() }),
            [Ok, Warn, Ok]
        );
        assert_eq!(levels(RedisProbe { eviction: None, ..good }), [Ok, Warn, Ok]);
    }
}
