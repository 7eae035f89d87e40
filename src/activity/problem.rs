//! What is wrong with a reported event.

use serde::Serialize;

/// One thing that is wrong with a reported event. The message says what to do, and never repeats a value of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{path}: {message}")]
pub struct EventProblem {
    /// The JSON pointer of the wrong value, or of the missing one. It is empty for the event itself.
    pub path: String,
    pub message: String,
}

impl EventProblem {
    /// A path may contain keys of a payload, so it has a limit.
    const MAX_PATH_BYTES: usize = 256;

    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        let mut path = path.into();
        if path.len() > Self::MAX_PATH_BYTES {
            let end =
                (0..=Self::MAX_PATH_BYTES).rev().find(|at| path.is_char_boundary(*at)).unwrap_or_default();
            path.truncate(end);
            path.push('\u{2026}');
        }
        Self { path, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let problem = EventProblem::new(format!("/payload/{}", "\u{e9}".repeat(200)), "is required");
        assert!(problem.path.len() < 262 && problem.path.ends_with("\u{e9}\u{2026}"));
        assert_eq!(EventProblem::new("/id", "x").path, "/id");
    }
}
