//! Checks that the key server answers with usable keys.

use crate::auth::{KeyServer, KeySetUrl};

use super::Finding;

pub(super) async fn check_key_server(url: &KeySetUrl) -> Vec<Finding> {
    let fetched = match KeyServer::new(url.clone()).fetch().await {
        Ok(fetched) => fetched,
        Err(error) => {
            return vec![Finding::fail(
                format!("the key server of JWT_JWKS_URL returned no usable keys: {error}"),
                "check JWT_JWKS_URL, and that the server can be reached from here; without keys every token is refused",
            )];
        }
    };
    let (count, algorithms) = (fetched.keys.len(), fetched.keys.algorithms().join(", "));
    let mut findings =
        vec![Finding::ok(format!("tokens are checked with JWT_JWKS_URL ({count} keys for {algorithms})"))];
    findings.extend(fetched.left_out.into_iter().map(|(index, reason)| {
        let text = format!("key {} of JWT_JWKS_URL is ignored: {reason}", index + 1);
        Finding::warn(text, "tokens that are signed with it are refused; see docs/configuration.md")
    }));
    findings
}
