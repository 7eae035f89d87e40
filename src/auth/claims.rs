//! What a token's payload says, once its signature is known to be good.

use serde_json::{Map, Value};

use super::{AuthError, UnixTime};
use crate::task::UserId;

/// Which claims name the user, the organisation and the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    pub user: String,
    pub org: String,
    pub name: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { user: "sub".into(), org: "orgId".into(), name: "name".into() }
    }
}

pub(super) struct Claims(pub(super) Map<String, Value>);

/// Ids and names become room names, database values and log fields.
const MAX_NAME_BYTES: usize = 256;

impl Claims {
    pub(super) fn user(&self, claim: &str) -> Result<&str, AuthError> {
        match self.get(claim) {
            Some(Value::String(user)) if is_name(user) => Ok(user),
            Some(_) => Err(AuthError::Unauthorized("the user claim is not a usable string")),
            None => Err(AuthError::Unauthorized("the user claim is missing")),
        }
    }

    /// The empty string names no organisation.
    pub(super) fn org(&self, claim: &str) -> Result<Option<&str>, AuthError> {
        match self.get(claim) {
            None => Ok(None),
            Some(Value::String(org)) if org.is_empty() => Ok(None),
            Some(Value::String(org)) if is_name(org) => Ok(Some(org)),
            Some(_) => Err(AuthError::Unauthorized("the organisation claim is not a usable string")),
        }
    }

    /// Decoration: an unusable one locks nobody out.
    pub(super) fn name(&self, claim: &str) -> Option<String> {
        self.get(claim).and_then(Value::as_str).filter(|name| is_name(name)).map(str::to_owned)
    }

    /// `scope` as OAuth writes it, `scopes` or `scp` as others do; each as text or as a list.
    pub(super) fn scopes(&self) -> Vec<String> {
        let mut scopes = Vec::new();
        for claim in ["scope", "scopes", "scp"] {
            match self.get(claim) {
                Some(Value::String(text)) => scopes.extend(text.split_whitespace().map(str::to_owned)),
                Some(Value::Array(list)) => {
                    scopes.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ => {}
            }
        }
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    /// A whole number of seconds. One that no clock reaches is a mistake, milliseconds most of all.
    pub(super) fn expiry(&self) -> Result<UnixTime, AuthError> {
        match self.get("exp") {
            None => Err(AuthError::Unauthorized("exp is missing")),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                match UnixTime::from_secs(number.as_u64().unwrap_or_default()) {
                    UnixTime::MAX => {
                        Err(AuthError::Unauthorized("exp is beyond the year 9999: is it in milliseconds?"))
                    }
                    expiry => Ok(expiry),
                }
            }
            Some(_) => Err(AuthError::Unauthorized("exp is not a whole number")),
        }
    }

    /// Err: it is there, but not a number.
    pub(super) fn time(&self, claim: &'static str) -> Result<Option<UnixTime>, ()> {
        match self.get(claim) {
            None => Ok(None),
            Some(Value::Number(number)) => UnixTime::from_numeric_date(number).map(Some).ok_or(()),
            Some(_) => Err(()),
        }
    }

    pub(super) fn is_from(&self, issuer: &str) -> bool {
        matches!(self.get("iss"), Some(Value::String(iss)) if iss == issuer)
    }

    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.get("aud") {
            Some(Value::String(aud)) => aud == audience,
            Some(Value::Array(list)) => list.iter().any(|aud| aud.as_str() == Some(audience)),
            _ => false,
        }
    }

    /// Some issuers write null for what they don't have.
    fn get(&self, claim: &str) -> Option<&Value> {
        self.0.get(claim).filter(|value| !value.is_null())
    }
}

/// A user as tokens may name it.
pub fn user_id(text: &str) -> Option<UserId> {
    UserId::parse(text).filter(|_| is_name(text))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}
