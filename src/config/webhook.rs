//! Settings of GitHub's webhook.

use super::{Secret, reader::Reader};

#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// A delivery that is signed with any of these secrets is accepted. Without a secret the route is disabled.
    pub secrets: Vec<Secret>,
}

impl WebhookConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let text = reader.text("GITHUB_WEBHOOK_SECRET").unwrap_or_default();
        let secrets: Vec<Secret> =
            text.split(',').map(str::trim).filter(|secret| !secret.is_empty()).map(Secret::new).collect();
        if secrets.is_empty() && !text.is_empty() {
            reader.problem("GITHUB_WEBHOOK_SECRET", "must be one secret, or several with commas between");
        }
        Self { secrets }
    }
}
