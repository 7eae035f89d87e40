//! `taskcast token`: signs a token with the configured secret.

use std::time::Duration;

use crate::{
    auth::{Grant, UnixTime},
    config::{Config, Sources},
};

use super::CliError;

#[derive(Clone, Debug)]
pub struct TokenArguments {
    pub sub: String,
    pub org: Option<String>,
    pub name: Option<String>,
    pub scopes: Vec<String>,
    pub ttl: Duration,
}

/// A token that a gateway with the same settings accepts.
pub fn token(arguments: TokenArguments, sources: &Sources, now: UnixTime) -> Result<String, CliError> {
    let tokens = Config::read(sources)?.tokens()?;
    let signer = tokens.signer.ok_or(CliError::NoSecret)?;
    let scopes = arguments.scopes.join(" ");
    let grant = Grant {
        user: arguments.sub,
        org: arguments.org,
        name: arguments.name,
        scope: (!scopes.is_empty()).then_some(scopes),
        ttl: arguments.ttl,
    };
    let token = signer.sign(&grant, now)?;
    tokens.verifier.verify(&token, now).map_err(CliError::RejectedToken)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> TokenArguments {
        TokenArguments {
            sub: "alice".into(),
            org: Some("acme".into()),
            name: None,
            scopes: vec!["a".into(), "tasks:write b".into()],
            ttl: Duration::from_secs(60),
        }
    }

    fn settings(pairs: &[(&str, &str)]) -> Sources {
        Sources::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_gateway_with_the_same_settings_accepts_the_token() {
        let sources =
            settings(&[("JWT_SECRET", "bench-secret"), ("JWT_USER_CLAIM", "uid"), ("JWT_AUDIENCE", "x")]);
        let now = UnixTime::now();
        let token = token(alice(), &sources, now).expect("a token");
        let tokens = Config::read(&sources).expect("usable").tokens().expect("keys");
        let identity = tokens.verifier.verify(&token, now).expect("accepted");
        assert_eq!(identity.viewer.user.as_str(), "alice");
        assert_eq!(identity.scopes, ["a", "b", "tasks:write"]);
        assert_eq!(identity.expires_at.as_secs(), now.as_secs() + 60);
    }

    #[test]
    fn a_token_that_the_gateway_would_refuse_is_not_made() {
        let sources = settings(&[("JWT_SECRET", "bench-secret")]);
        let nobody = TokenArguments { sub: String::new(), ..alice() };
        assert!(matches!(token(nobody, &sources, UnixTime::now()), Err(CliError::RejectedToken(_))));
        let public = include_str!("../auth/testdata/ed25519.pub.pem");
        let error = token(alice(), &settings(&[("JWT_PUBLIC_KEY", public)]), UnixTime::now());
        assert!(matches!(error, Err(CliError::NoSecret)));
        let error = token(alice(), &settings(&[]), UnixTime::now());
        assert!(matches!(error, Err(CliError::Config(_))));
    }
}
