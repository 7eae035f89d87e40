//! Verifies a token and returns the [`Identity`] of its user.

use std::{sync::Arc, time::Duration};

use crate::{
    metrics::HandshakeOutcome,
    task::{DefaultOrg, OrgId, UserId, Viewer},
};

use super::{ClaimNames, Identity, Keys, Revocations, UnixTime, claims::Claims, jws::Jws};

/// How far another machine's clock may be ahead. `exp` has no leeway: a token must never be accepted after it.
const LEEWAY: Duration = Duration::from_secs(30);
/// The default of `MAX_TOKEN_BYTES`.
pub const DEFAULT_MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The reason is for the log only.
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error(
        "the token has {bytes} bytes and MAX_TOKEN_BYTES is {max}; raise it if such tokens are to be accepted"
    )]
    TooLong { bytes: usize, max: usize },
    #[error("the token has expired")]
    Expired,
    /// A temporary error: the key that signed the token may not have been fetched yet.
    #[error("no key that fits the token is known yet")]
    NoKey {
        /// A retry may succeed after this time.
        retry_after: Duration,
    },
}

impl AuthError {
    /// The error code that the client receives.
    pub fn code(&self) -> &'static str {
        self.outcome().into()
    }

    /// How a handshake with this token counts in the metrics.
    pub fn outcome(&self) -> HandshakeOutcome {
        match self {
            Self::Unauthorized(_) | Self::TooLong { .. } => HandshakeOutcome::Unauthorized,
            Self::Expired => HandshakeOutcome::TokenExpired,
            Self::NoKey { .. } => HandshakeOutcome::Unavailable,
        }
    }

    /// Returns true if the same token may be accepted later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::NoKey { .. })
    }
}

/// Checks tokens against keys and one set of rules.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    pub keys: Keys,
    pub claims: ClaimNames,
    /// Issuer and audience are checked if they are configured.
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Longer tokens are refused without being parsed.
    pub max_token_bytes: usize,
    /// The organisation of tokens that name none.
    pub default_org: DefaultOrg,
    /// Users whose earlier tokens are no longer accepted.
    pub revocations: Arc<Revocations>,
}

impl TokenVerifier {
    /// Calls [`verify`](Self::verify) with the current time. If the key of the token is unknown, this function waits
    /// for newer keys. [`AuthError::NoKey`] means that no keys come within `timeout`, that the fetch failed, or that
    /// too many callers already wait.
    pub async fn admit(&self, token: &str, timeout: Duration) -> Result<Identity, AuthError> {
        let verify = || self.verify(token, UnixTime::now());
        match &self.keys {
            Keys::Configured(_) => verify(),
            Keys::Fetched(keys) => keys.wait_for(timeout, verify).await,
        }
    }

    /// Checks the token with the keys that are known at the moment.
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Identity, AuthError> {
        if token.len() > self.max_token_bytes {
            return Err(AuthError::TooLong { bytes: token.len(), max: self.max_token_bytes });
        }
        let jws = Jws::parse(token)?;
        self.keys.accept(&jws)?;
        let payload = jws.payload();
        let (members, has_lone_surrogate) =
            payload.ok_or(AuthError::Unauthorized("the token's payload is not a JSON object"))?;
        let claims = Claims(members);
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
        let user = UserId::parse(&user).ok_or(AuthError::Unauthorized("the user claim is empty"))?;
        if self.revocations.is_revoked(&user, issued_at) {
            return Err(AuthError::Unauthorized("the user was disconnected after the token was issued"));
        }
        let org = claims.org(&self.claims.org)?;
        // Two different ids that were cut inside an emoji could become the same id.
        if has_lone_surrogate
            && [Some(user.as_str()), org.as_deref()].into_iter().flatten().any(|id| id.contains('\u{fffd}'))
        {
            return Err(AuthError::Unauthorized(
                "the user or organisation claim has half of a surrogate pair",
            ));
        }
        let org = self.default_org.or(org.as_deref().and_then(OrgId::parse));

        // Expiry is checked last: `token_expired` promises the client that a fresh token of the same kind is accepted.
        let expires_at = claims.expiry()?;
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
