//! The greeting that a gateway in development mode prints when it is ready.

use std::{net::SocketAddr, time::Duration};

use crate::{
    auth::{Grant, SignError, UnixTime},
    config::{Config, KeySource, Tokens},
};

const USER: &str = "dev";
const ORG: &str = "dev";
const TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A token and a URL to begin with, for stdout. `None` means that keys are configured. `listening` is the address at which
/// the gateway actually listens.
pub fn dev_greeting(
    config: &Config,
    tokens: &Tokens,
    listening: SocketAddr,
    now: UnixTime,
) -> Result<Option<String>, SignError> {
    let (KeySource::Generated(path), Some(signer)) = (&config.auth.keys, &tokens.signer) else {
        return Ok(None);
    };
    let org = config.store.default_org.0.as_ref().map_or(ORG, |org| org.as_str());
    let grant = Grant {
        user: USER.to_owned(),
        org: Some(org.to_owned()),
        name: Some("Developer".to_owned()),
        scope: Some("tasks:write".to_owned()),
        ttl: TTL,
    };
    let token = signer.sign(&grant, now)?;
    let url = format!("http://{}", config.server.local_address(listening.port()));
    let secret = path.display();
    let program = std::env::args().next().unwrap_or_else(|| "taskcast".to_owned());
    Ok(Some(format!(
        "Development mode: tokens are checked with the secret in {secret}\n\
         URL:   {url}\n\
         Token: {token}\n       \
         (user {USER}, organisation {org}, scope tasks:write, valid for 30 days; create other tokens with `taskcast token`)\n\
         Watch: {program} tail --url {url} --token {token}\n\
         Try:   curl -H 'Authorization: Bearer {token}' {url}/api/tasks",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn greeting(pairs: &[(&str, &str)]) -> (Option<String>, Tokens) {
        let sources = Sources::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let config = Config::read(&sources).expect("usable");
        let tokens = config.tokens().expect("keys");
        let listening = SocketAddr::from(([0, 0, 0, 0], 4711));
        (dev_greeting(&config, &tokens, listening, UnixTime::now()).expect("signed"), tokens)
    }

    #[test]
    fn the_token_is_accepted_and_the_url_is_local() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("UTF-8");
        let (text, tokens) = greeting(&[("TASKCAST_DEV", "1"), ("DATA_DIR", data), ("DEFAULT_ORG", "acme")]);
        let text = text.expect("a greeting");
        assert!(text.contains("URL:   http://127.0.0.1:4711\n"), "{text}");
        let token = text.lines().find_map(|line| line.strip_prefix("Token: ")).expect("a token");
        let identity = tokens.verifier.verify(token, UnixTime::now()).expect("accepted");
        assert!(identity.has_scope("tasks:write"));
        assert_eq!(identity.viewer.org.expect("named").as_str(), "acme");
    }

    #[test]
    fn no_token_is_printed_when_keys_are_configured() {
        assert_eq!(greeting(&[("JWT_SECRET", "bench-secret"), ("TASKCAST_DEV", "1")]).0, None);
    }
}
