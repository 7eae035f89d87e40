//! Signs tokens for development and for scripts, with HS256 only.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::{ClaimNames, UnixTime};

/// Signs tokens with the secret that the gateway verifies them with.
#[derive(Clone, Debug)]
pub struct TokenSigner {
    key: EncodingKey,
    claims: ClaimNames,
    issuer: Option<String>,
    audience: Option<String>,
}

/// The contents of a new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub user: String,
    pub org: Option<String>,
    pub name: Option<String>,
    /// Space-separated.
    pub scope: Option<String>,
    pub ttl: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

impl TokenSigner {
    pub fn new(secret: &[u8], claims: ClaimNames, issuer: Option<String>, audience: Option<String>) -> Self {
        Self { key: EncodingKey::from_secret(secret), claims, issuer, audience }
    }

    pub fn sign(&self, grant: &Grant, now: UnixTime) -> Result<String, SignError> {
        let mut claims = Map::new();
        let mut text = |claim: &str, value: Option<&String>| {
            if let Some(value) = value {
                claims.insert(claim.to_owned(), Value::from(value.as_str()));
            }
        };
        text("iss", self.issuer.as_ref());
        text("aud", self.audience.as_ref());
        text("scope", grant.scope.as_ref());
        text(&self.claims.name, grant.name.as_ref());
        text(&self.claims.org, grant.org.as_ref());
        text(&self.claims.user, Some(&grant.user));
        claims.insert("iat".to_owned(), now.as_secs().into());
        claims.insert("exp".to_owned(), now.plus(grant.ttl).as_secs().into());
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)?)
    }
}
