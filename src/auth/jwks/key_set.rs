//! Parses the key set in an answer of the key server, and checks tokens with its keys.

use base64::prelude::*;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::super::{
    AuthError, Key, KeyError,
    jws::Jws,
    keys::{WRONG_ALGORITHM, WRONG_SIGNATURE},
};

/// The usable keys of an answer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<NamedKey>);

#[derive(Clone, Debug)]
struct NamedKey {
    kid: Option<String>,
    key: Key,
}

/// Why an answer is not a usable key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("it is not a JSON object with keys")]
    NotAKeySet,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("none of its keys can be used")]
    NoneUsable,
}

/// Why a key of a set is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    #[error("it is not a valid key")]
    Malformed,
    #[error("it is a shared secret, which must not be published")]
    Secret,
    #[error("its private part is published")]
    Private,
    #[error("it is not for signatures")]
    Use,
    #[error("its alg is not accepted for a key of this kind")]
    Algorithm,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The maximum number of keys in a set. The limit bounds the work for a token without `kid`, or with a `kid` that many
/// keys have.
const MAX_KEYS: usize = 64;
const FETCHABLE: [&str; 3] = ["RS256", "ES256", "EdDSA"];

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members of a key that are read. A duplicate member makes the key unusable.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

impl KeySet {
    /// Returns the usable keys, and the index and reason of each key that was left out.
    pub fn parse(json: &[u8]) -> Result<(Self, Vec<(usize, UnusableKey)>), KeySetError> {
        let document: Document<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::NotAKeySet)?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let (mut usable, mut left_out) = (Vec::new(), Vec::new());
        for (index, json) in document.keys.into_iter().enumerate() {
            match NamedKey::parse(json.get()) {
                Ok(key) => usable.push(key),
                Err(reason) => left_out.push((index, reason)),
            }
        }
        if usable.is_empty() { Err(KeySetError::NoneUsable) } else { Ok((Self(usable), left_out)) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The algorithms that tokens may be signed with, each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let has = |algorithm: &&str| self.0.iter().any(|named| named.key.algorithm() == *algorithm);
        FETCHABLE.into_iter().filter(has).collect()
    }

    /// [`AuthError::NoKey`] means that a newer set may contain the key.
    pub(in crate::auth) fn accept(&self, jws: &Jws<'_>) -> Result<(), AuthError> {
        if !FETCHABLE.contains(&&*jws.algorithm) {
            return Err(WRONG_ALGORITHM);
        }
        match &jws.kid {
            Some(kid) => self.accept_named(jws, kid),
            None => self.accept_unnamed(jws),
        }
    }

    /// A set should not contain a key id twice, but some do during a key rotation. All keys with that id are tried,
    /// because the key server published all of them.
    fn accept_named(&self, jws: &Jws<'_>, kid: &str) -> Result<(), AuthError> {
        let named = || self.0.iter().filter(|named| named.kid.as_deref() == Some(kid));
        let mut matching = named().filter(|named| named.key.algorithm() == jws.algorithm).peekable();
        if matching.peek().is_none() {
            return Err(if named().next().is_none() { NO_KEY } else { WRONG_ALGORITHM });
        }
        if matching.any(|named| named.accepts(jws)) { Ok(()) } else { Err(WRONG_SIGNATURE) }
    }

    fn accept_unnamed(&self, jws: &Jws<'_>) -> Result<(), AuthError> {
        let mut matching = self.0.iter().filter(|named| named.key.algorithm() == jws.algorithm);
        match (matching.next(), matching.next()) {
            (None, _) => Err(NO_KEY),
            (Some(only), None) if only.accepts(jws) => Ok(()),
            // If keys have no ids, a wrong signature may mean that the server has a new key.
            (Some(only), None) if only.kid.is_none() => Err(NO_KEY),
            (Some(_), None) => Err(WRONG_SIGNATURE),
            _ => Err(AuthError::Unauthorized("the token has no kid, and several keys fit")),
        }
    }
}

const NO_KEY: AuthError = AuthError::NoKey { retry_after: std::time::Duration::ZERO };

impl NamedKey {
    fn parse(json: &str) -> Result<Self, UnusableKey> {
        let jwk: Jwk = serde_json::from_str(json).map_err(|_| UnusableKey::Malformed)?;
        if jwk.kty == "oct" {
            return Err(UnusableKey::Secret);
        }
        if jwk.d.is_some() {
            return Err(UnusableKey::Private);
        }
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if jwk.r#use.as_deref().is_some_and(|r#use| r#use != "sig") || !verifies {
            return Err(UnusableKey::Use);
        }
        let key = match (&*jwk.kty, jwk.crv.as_deref()) {
            ("RSA", None) => Key::rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?)?,
            ("EC", Some("P-256")) => Key::p256(&coordinate(&jwk.x)?, &coordinate(&jwk.y)?)?,
            ("OKP", Some("Ed25519")) => Key::ed25519(&coordinate(&jwk.x)?)?,
            _ => return Err(KeyError::Kind.into()),
        };
        if jwk.alg.as_deref().is_some_and(|alg| alg != key.algorithm()) {
            return Err(UnusableKey::Algorithm);
        }
        Ok(Self { kid: jwk.kid, key })
    }

    fn accepts(&self, jws: &Jws<'_>) -> bool {
        self.key.accepts(jws.message.as_bytes(), jws.signature)
    }
}

fn bytes(text: &Option<String>) -> Result<Vec<u8>, UnusableKey> {
    let text = text.as_ref().ok_or(UnusableKey::Malformed)?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::Malformed)
}

fn coordinate(text: &Option<String>) -> Result<[u8; 32], UnusableKey> {
    bytes(text)?.try_into().map_err(|_| UnusableKey::Malformed)
}
