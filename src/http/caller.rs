//! Authenticates the caller of a route, and checks whether the task API is enabled for the request.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};
use tokio::sync::Semaphore;

use super::{ApiError, HttpState};
use crate::{
    address::{QuotaPermit, Quotas},
    auth::{AuthError, Identity, UnixTime, bearer},
    task::UserId,
};

/// A caller with a valid token, if the task API may be read.
#[derive(Debug)]
pub(super) struct Reader(pub Identity);

/// A caller with a valid token, if the task API may be written.
#[derive(Debug)]
pub(super) struct Writer(pub Identity);

/// A [`Writer`] whose token has the scope `tasks:write`.
#[derive(Debug)]
pub(super) struct Pipeline(pub Identity);

/// A caller whose token has the scope `admin`. The task API may be switched off.
#[derive(Debug)]
pub(super) struct Administrator(pub Identity);

/// A request waits this long for a fetch of keys. This suffices for a fetch that can begin at once.
const KEY_TIMEOUT: Duration = Duration::from_secs(6);
/// At most this many requests wait for keys. Anybody can invent names of keys, and must not take the slots of callers whose keys are
/// known.
const MAX_WAITING_FOR_KEYS: usize = 64;
static KEY_WAITERS: Semaphore = Semaphore::const_new(MAX_WAITING_FOR_KEYS);
/// At most this many bodies of one user are read at once. Bodies may come slowly, and the number of concurrent requests is limited.
const MAX_BODIES_PER_USER: usize = 64;
static BODY_QUOTAS: LazyLock<Quotas<UserId>> = LazyLock::new(|| Quotas::new(Some(MAX_BODIES_PER_USER)));
const ADMIN_SCOPE: &str = "admin";
const WRITE_SCOPE: &str = "tasks:write";

/// One of [`MAX_BODIES_PER_USER`] slots, held while the body is read.
#[derive(Clone, Debug)]
pub(super) struct BodyPermit(#[expect(dead_code, reason = "held, not read")] Arc<QuotaPermit<UserId>>);

impl BodyPermit {
    pub(super) fn of(caller: &Identity) -> Result<Self, ApiError> {
        let permit = BODY_QUOTAS.take(caller.viewer.user.clone(), 1).ok_or(ApiError::Overloaded)?;
        Ok(Self(Arc::new(permit)))
    }
}

impl FromRequestParts<HttpState> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let identity = identify(&parts.headers, state).await?;
        if state.task_api.reads() {
            Ok(Self(identity))
        } else {
            Err(ApiError::FeatureDisabled("the task API is switched off"))
        }
    }
}

impl FromRequestParts<HttpState> for Writer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let Reader(identity) = Reader::from_request_parts(parts, state).await?;
        if !state.task_api.writes() {
            return Err(ApiError::FeatureDisabled(
                "the task API is read-only here: the backend that owns the tasks writes them",
            ));
        }
        parts.extensions.insert(BodyPermit::of(&identity)?);
        Ok(Self(identity))
    }
}

impl FromRequestParts<HttpState> for Pipeline {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let Writer(identity) = Writer::from_request_parts(parts, state).await?;
        if identity.has_scope(WRITE_SCOPE) {
            Ok(Self(identity))
        } else {
            Err(ApiError::MissingScope(WRITE_SCOPE))
        }
    }
}

impl FromRequestParts<HttpState> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, ApiError> {
        let identity = identify(&parts.headers, state).await?;
        if identity.has_scope(ADMIN_SCOPE) {
            Ok(Self(identity))
        } else {
            Err(ApiError::MissingScope(ADMIN_SCOPE))
        }
    }
}

/// Verifies the caller's token.
pub(super) async fn identify(headers: &HeaderMap, state: &HttpState) -> Result<Identity, ApiError> {
    let token = bearer(headers).ok_or(ApiError::NoToken)?;
    match state.tokens.verify(token, UnixTime::now()) {
        Err(unknown @ AuthError::NoKey { .. }) => {
            let _permit = KEY_WAITERS.try_acquire().map_err(|_| unknown)?;
            Ok(state.tokens.admit(token, KEY_TIMEOUT).await?)
        }
        other => Ok(other?),
    }
}
