//! GitHub's webhooks.

use super::ApiError;

/// Stands in until the route is served: without a secret no delivery can be told from a forged one.
pub(super) async fn not_configured() -> ApiError {
    ApiError::NotConfigured("webhooks are not configured: GITHUB_WEBHOOK_SECRET is not set")
}
