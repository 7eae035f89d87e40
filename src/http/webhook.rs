//! GitHub's webhooks.

use super::ApiError;

/// Until deliveries are taken: whoever points GitHub here sees why nothing happens.
pub(super) async fn not_configured() -> ApiError {
    ApiError::NotConfigured(
        "this gateway takes no webhooks: GITHUB_WEBHOOK_SECRET is not set, or the version does not have them yet",
    )
}
