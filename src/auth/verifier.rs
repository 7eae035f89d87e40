//! Token → [`Identity`].

use std::{sync::Arc, time::Duration};

use crate::task::{DefaultOrg, OrgId, UserId, Viewer};

use super::{ClaimNames, Identity, Keys, Revocations, UnixTime, claims::Claims, jws::Jws};

/// How far another machine's clock may be ahead. `exp` has none: its moment is a promise.
const LEEWAY: Duration = Duration::from_secs(30);
/// What `MAX_TOKEN_BYTES` is where nobody has set it.
pub const DEFAULT_MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The reason is for the log alone.
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error(
        "the token has {bytes} bytes and MAX_TOKEN_BYTES is {max}; raise it if such tokens are to be accepted"
    )]
    TooLong { bytes: usize, max: usize },
    #[error("the token has expired")]
    Expired,
    /// Passing: the key that signed it may not have been fetched yet.
    #[error("no key that fits the token is known yet")]
    NoKey {
        /// When that may be otherwise.
        retry_after: Duration,
    },
}

impl AuthError {
    /// What the client is told.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) | Self::TooLong { .. } => "unauthorized",
            Self::Expired => "token_expired",
            Self::NoKey { .. } => "unavailable",
        }
    }

    /// Whether the same token may be accepted later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoKey { .. })
    }
}

/// Checks tokens against keys and one set of rules.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    pub keys: Keys,
    pub claims: ClaimNames,
    /// Checked where given, as is the audience.
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Longer tokens are refused unread.
    pub max_token_bytes: usize,
    /// For tokens that name no organisation.
    pub default_org: DefaultOrg,
    /// Users whose earlier tokens are no longer accepted.
    pub revocations: Arc<Revocations>,
}

impl TokenVerifier {
    /// As [`verify`](Self::verify), now; but waits, if need be, until keys have been fetched that are newer than the
    /// token. [`AuthError::NoKey`]: that would take longer than `patience`, did not work, or too many wait already.
    pub async fn admit(&self, token: &str, patience: Duration) -> Result<Identity, AuthError> {
        let verify = || self.verify(token, UnixTime::now());
        match &self.keys {
            Keys::Configured(_) => verify(),
            Keys::Fetched(keys) => keys.wait_for(patience, verify).await,
        }
    }

    /// With the keys that are known.
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Identity, AuthError> {
        if token.len() > self.max_token_bytes {
            return Err(AuthError::TooLong { bytes: token.len(), max: self.max_token_bytes });
        }
        let jws = Jws::parse(token)?;
        self.keys.accept(&jws)?;
        let payload = jws.payload();
        let (members, is_cut) =
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
        if self.revocations.cover(&user, issued_at) {
            return Err(AuthError::Unauthorized("the user was disconnected after the token was issued"));
        }
        let org = claims.org(&self.claims.org)?;
        // Two ids that were cut at different places would become one.
        if is_cut
            && [Some(user.as_str()), org.as_deref()].into_iter().flatten().any(|id| id.contains('\u{fffd}'))
        {
            return Err(AuthError::Unauthorized(
                "the user or organisation claim has half of a surrogate pair",
            ));
        }
        let org = self.default_org.or(org.as_deref().and_then(OrgId::parse));

        // Last: `token_expired` promises that a fresh token of the same kind is accepted.
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
