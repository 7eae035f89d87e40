//! Token → [`Identity`].

use std::{sync::Arc, time::Duration};

use base64::prelude::*;
use serde_json::{Map, Value};

use crate::task::{DefaultOrg, OrgId, UserId, Viewer};

use super::{ClaimNames, Identity, Keys, Revocations, UnixTime, claims::Claims};

/// Longer ones are refused unread.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far another machine's clock may be ahead. `exp` has none: its moment is a promise.
const LEEWAY: Duration = Duration::from_secs(30);

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The reason is for the log alone.
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("the token has expired")]
    Expired,
}

impl AuthError {
    /// What the client is told.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::Expired => "token_expired",
        }
    }
}

/// Checks tokens against one key and one set of rules.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    pub keys: Keys,
    pub claims: ClaimNames,
    /// Checked where given, as is the audience.
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// For tokens that name no organisation.
    pub default_org: DefaultOrg,
    /// Users whose earlier tokens are no longer accepted.
    pub revocations: Arc<Revocations>,
}

impl TokenVerifier {
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Identity, AuthError> {
        let claims = self.open(token)?;
        self.check_origin(&claims)?;

        let no_number = AuthError::Unauthorized("nbf or iat is not a number");
        let latest = now.plus(LEEWAY);
        if claims.time("nbf").map_err(|()| no_number)? > Some(latest) {
            return Err(AuthError::Unauthorized("the token is not valid yet"));
        }
        let issued_at = claims.time("iat").map_err(|()| no_number)?;
        if issued_at > Some(latest) {
            return Err(AuthError::Unauthorized("the token was issued in the future"));
        }

        let user = claims.user(&self.claims.user)?;
        let user = UserId::parse(user).ok_or(AuthError::Unauthorized("the user claim is empty"))?;
        if self.revocations.cover(&user, issued_at) {
            return Err(AuthError::Unauthorized("the user was disconnected after the token was issued"));
        }
        let org = self.default_org.or(claims.org(&self.claims.org)?.and_then(OrgId::parse));

        // Last: `token_expired` promises that a fresh token of the same kind is accepted.
        let expires_at = claims
            .time("exp")
            .map_err(|()| AuthError::Unauthorized("exp is not a number"))?
            .ok_or(AuthError::Unauthorized("exp is missing"))?;
        if now >= expires_at {
            return Err(AuthError::Expired);
        }
        Ok(Identity {
            viewer: Viewer { user, org },
            name: claims.name(&self.claims.name),
            scopes: claims.scopes(),
            issued_at,
            expires_at,
        })
    }

    /// The claims, once the signature is known to be good.
    fn open(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Unauthorized("the token is too long"));
        }
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        });
        let Some((message, header, payload, signature)) = parts else {
            return Err(AuthError::Unauthorized("the token has not three parts"));
        };
        let header = json(header).ok_or(AuthError::Unauthorized("the token's header is not JSON"))?;
        if header.get("alg").and_then(Value::as_str) != Some(self.keys.algorithm()) {
            return Err(AuthError::Unauthorized("the token's alg is not that of the configured key"));
        }
        // It lists extensions that must be understood. None is.
        if header.contains_key("crit") {
            return Err(AuthError::Unauthorized("the token's header has crit"));
        }
        if !self.keys.accept(message, signature) {
            return Err(AuthError::Unauthorized("the token's signature is wrong"));
        }
        json(payload).map(Claims).ok_or(AuthError::Unauthorized("the token's payload is not a JSON object"))
    }

    fn check_origin(&self, claims: &Claims) -> Result<(), AuthError> {
        if self.issuer.as_deref().is_some_and(|issuer| !claims.is_from(issuer)) {
            return Err(AuthError::Unauthorized("iss is not the configured issuer"));
        }
        if self.audience.as_deref().is_some_and(|audience| !claims.is_for(audience)) {
            return Err(AuthError::Unauthorized("aud does not contain the configured audience"));
        }
        Ok(())
    }
}

fn json(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
