//! The token with which a command talks to a gateway.

use std::time::Duration;

use super::CliError;
use crate::{
    auth::{Grant, TokenSigner, UnixTime},
    config::{Config, Sources},
};

const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// The options of a command that say who its user is.
#[derive(Clone, Debug, Default)]
pub struct LoginArguments {
    pub token: Option<String>,
    pub sub: Option<String>,
    pub org: Option<String>,
}

pub(super) enum Credentials {
    Given(String),
    /// A new token is signed for each connection, so that reconnecting never fails because of an expired token.
    Signed {
        signer: Box<TokenSigner>,
        grant: Grant,
        has_org: bool,
    },
}

impl Credentials {
    /// If no token is given, taskcast signs one for `user`, unless the options name another user.
    pub(super) fn of(
        login: &LoginArguments,
        sources: &Sources,
        user: &str,
        scope: Option<&str>,
    ) -> Result<Self, CliError> {
        if let Some(token) = &login.token {
            return Ok(Self::Given(token.clone()));
        }
        let config = Config::read(sources)?;
        let signer = Box::new(config.tokens()?.signer.ok_or(CliError::NoSecret)?);
        let grant = Grant {
            user: login.sub.clone().unwrap_or_else(|| user.to_owned()),
            org: login.org.clone(),
            name: None,
            scope: scope.map(str::to_owned),
            ttl: TOKEN_TTL,
        };
        let has_org = grant.org.is_some() || config.store.default_org.0.is_some();
        Ok(Self::Signed { signer, grant, has_org })
    }

    /// The user of the token that taskcast signs, if the user has no organisation.
    pub(super) fn user_without_org(&self) -> Option<&str> {
        match self {
            Self::Signed { grant, has_org: false, .. } => Some(&grant.user),
            _ => None,
        }
    }

    pub(super) fn token(&self) -> Result<String, CliError> {
        Ok(match self {
            Self::Given(token) => token.clone(),
            Self::Signed { signer, grant, .. } => signer.sign(grant, UnixTime::now())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_when_none_is_given() {
        let login = LoginArguments::default();
        let secret = Sources::new([("JWT_SECRET".to_owned(), "bench-secret".to_owned())]);
        let of = |login: &LoginArguments, sources: &Sources| {
            Credentials::of(login, sources, "taskcast-test", Some("events:write"))
        };
        let credentials = of(&login, &secret).expect("made");
        assert_eq!(credentials.user_without_org(), Some("taskcast-test"));
        let tokens = Config::read(&secret).expect("usable").tokens().expect("keys");
        let token = credentials.token().expect("signed");
        let identity = tokens.verifier.verify(&token, UnixTime::now()).expect("accepted");
        assert_eq!(identity.viewer.user.as_str(), "taskcast-test");
        assert!(identity.has_scope("events:write"));

        let given = LoginArguments { token: Some("x".into()), ..login.clone() };
        assert_eq!(of(&given, &Sources::default()).expect("given").token().expect("given"), "x");
        assert!(matches!(of(&login, &Sources::default()), Err(CliError::Config(_))));
    }
}
