//! Reads the claims of a token, after its signature has been checked.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{AuthError, UnixTime};
use crate::task::UserId;

/// Which claims contain the user's id, the organisation and the user's name. Each is the name of a claim, or a path to
/// it such as `user.id`.
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

/// The longest id or name. Ids and names become room names, database values and log fields.
const MAX_NAME_BYTES: usize = 256;

impl Claims {
    pub(super) fn user(&self, claim: &str) -> Result<Cow<'_, str>, AuthError> {
        match self.get(claim) {
            Some(user) => id_text(user).ok_or(AuthError::Unauthorized(
                "the user claim is neither a usable string nor a whole number",
            )),
            None => Err(AuthError::Unauthorized("the user claim is missing")),
        }
    }

    /// An empty string means no organisation.
    pub(super) fn org(&self, claim: &str) -> Result<Option<Cow<'_, str>>, AuthError> {
        match self.get(claim) {
            None => Ok(None),
            Some(Value::String(org)) if org.is_empty() => Ok(None),
            Some(org) => id_text(org).map(Some).ok_or(AuthError::Unauthorized(
                "the organisation claim is neither a usable string nor a whole number",
            )),
        }
    }

    /// The name is only for display, so a token with an unusable name is accepted without a name.
    pub(super) fn name(&self, claim: &str) -> Option<String> {
        self.get(claim).and_then(Value::as_str).filter(|name| is_usable_text(name)).map(str::to_owned)
    }

    /// OAuth uses `scope`; other issuers use `scopes` or `scp`. Each may be a text or a list.
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

    /// Reads seconds since 1970, perhaps with a fraction. A time after the year 9999 is an error: most often it is in
    /// milliseconds.
    pub(super) fn expiry(&self) -> Result<UnixTime, AuthError> {
        match self.time("exp") {
            Ok(Some(UnixTime::MAX)) => {
                Err(AuthError::Unauthorized("exp is beyond the year 9999: is it in milliseconds?"))
            }
            Ok(Some(expiry)) => Ok(expiry),
            Ok(None) => Err(AuthError::Unauthorized("exp is missing")),
            Err(()) => Err(AuthError::Unauthorized("exp is not a number")),
        }
    }

    /// `Err` means that the claim exists but is not a number.
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

    /// A null counts as absent, because some issuers write null for a missing value.
    fn get(&self, claim: &str) -> Option<&Value> {
        find(&self.0, claim).filter(|value| !value.is_null())
    }
}

/// This value stands for a claim that exists but can't be used.
static UNUSABLE: Value = Value::Bool(false);

/// Finds the claim with this name. If there is none, the name is read as a path, such as `user.id`. If names contain dots
/// themselves, the longest existing name is used. A path does not lead into a list. A path through a value that is
/// neither an object nor null gives `UNUSABLE`: a token that names its organisation in another form must not count as a
/// token without one.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let (mut members, mut rest) = (claims, name);
    loop {
        if let Some(value) = members.get(rest) {
            return Some(value);
        }
        let dots = rest.rmatch_indices('.');
        let (outer, inner) = dots
            .map(|(dot, _)| (&rest[..dot], &rest[dot + 1..]))
            .find(|(outer, _)| members.contains_key(*outer))?;
        members = match members.get(outer)? {
            Value::Object(members) => members,
            Value::Null => return None,
            _ => return Some(&UNUSABLE),
        };
        rest = inner;
    }
}

/// Accepts a string, or a whole number as its decimal digits, because many issuers number their users. Other numbers (a
/// fraction, an exponent, more than 64 bits) are refused: JSON parsers may round them, and two users could become one.
fn id_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::from(text.as_str())).filter(|text| is_usable_text(text)),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// Parses a user's id by the same rules as a user id in a token.
pub fn user_id(text: &str) -> Option<UserId> {
    UserId::parse(text).filter(|_| is_usable_text(text))
}

fn is_usable_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}
