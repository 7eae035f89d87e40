//! Messages that nodes receive by pub/sub. Anybody with write access to Redis can publish any message there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    auth::{UnixTime, user_id},
    task::UserId,
};

use super::session_change::SessionId;

/// How far another node's clock may be ahead. A disconnect in the far future would lock its user out until then.
const CLOCK_LEEWAY: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum PubSubMessage {
    /// Close this session of the node: its user has one too many, and this is the oldest.
    Close(SessionId),
    Disconnect {
        user: String,
        at: u64,
    },
}

/// Checks a disconnect from another node. `None` means that it is not plausible.
pub(super) fn disconnect(user: &str, at: u64, now: UnixTime) -> Option<(UserId, UnixTime)> {
    let at = UnixTime::from_millis(at);
    user_id(user).filter(|_| at <= now.plus(CLOCK_LEEWAY)).map(|user| (user, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_messages_of_the_scripts_are_parsed() {
        let parse = |text: &str| serde_json::from_str::<PubSubMessage>(text).ok();
        assert_eq!(parse(r#"{"close":7}"#), Some(PubSubMessage::Close(7)));
        let message = PubSubMessage::Disconnect { user: "ann".into(), at: 5 };
        assert_eq!(parse(&serde_json::to_string(&message).unwrap()), Some(message));
        for text in ["", "7", r#"{"close":-1}"#, r#"{"open":7}"#, r#"{"disconnect":{"user":"ann"}}"#] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_implausible_disconnect_is_refused() {
        let now = UnixTime::from_secs(1000);
        assert!(disconnect("ann", 1_299_000, now).is_some(), "its clock may be ahead");
        assert!(disconnect("ann", 1_301_000, now).is_none());
        assert!(disconnect("ann", u64::MAX, now).is_none());
        assert!(disconnect("", 0, now).is_none() && disconnect(&"a".repeat(257), 0, now).is_none());
    }
}
