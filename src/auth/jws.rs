//! Parses the compact form of a token (RFC 7515): three parts, and a header that names the key. The caller must check
//! the signature before it trusts the contents.

use std::borrow::Cow;

use base64::prelude::*;
use serde_json::{Map, Value};

use super::{AuthError, unique_json::UniqueObject};
use crate::json::replace_lone_surrogates_in;

/// A parsed token. Its signature has not been checked yet.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    /// The signed text: header and payload.
    pub message: &'a str,
    payload: &'a str,
    /// In base64.
    pub signature: &'a str,
    pub algorithm: String,
    pub kid: Option<String>,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        });
        let Some((message, header, payload, signature)) = parts else {
            return Err(AuthError::Unauthorized("the token does not have three parts"));
        };
        let mut header = object(header).ok_or(AuthError::Unauthorized("the token's header is not JSON"))?;
        // `crit` lists extensions that a verifier must understand, and `b64` changes which bytes are signed. Neither is
        // supported.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(AuthError::Unauthorized("the token's header has crit or b64"));
        }
        if header.get("typ").is_some_and(|typ| !is_access_token(typ)) {
            return Err(AuthError::Unauthorized("the token's typ is not that of an access token"));
        }
        let Some(Value::String(algorithm)) = header.remove("alg") else {
            return Err(AuthError::Unauthorized("the token's header has no alg"));
        };
        let kid = match header.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(AuthError::Unauthorized("the token's kid is not a string")),
        };
        Ok(Self { message, payload, signature, algorithm, kid })
    }

    /// The claims. The caller must have checked the signature. JavaScript may cut a string inside an emoji: the second
    /// value is true if the text contains such a half of a surrogate pair.
    pub(super) fn payload(&self) -> Option<(Map<String, Value>, bool)> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(self.payload).ok()?;
        let text = replace_lone_surrogates_in(&bytes);
        let UniqueObject(members) = serde_json::from_slice(&text).ok()?;
        Some((members, matches!(text, Cow::Owned(_))))
    }
}

/// Checks the token's type (RFC 8725 §3.11). The keys of one issuer also sign logout tokens, security events and proofs
/// of possession, for the same users and with the same `aud`.
fn is_access_token(typ: &Value) -> bool {
    let Some(typ) = typ.as_str().map(str::to_ascii_lowercase) else { return false };
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let UniqueObject(members) = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    Some(members)
}
