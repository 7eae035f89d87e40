//! Checks who can connect: warns of secrets that can be guessed, and of origins that admit no web page.

use std::collections::HashSet;

use crate::config::{Config, KeySource, MIN_SECRET_BYTES};

use super::Finding;

/// A secret with fewer different characters is weak. Random secrets in hexadecimal or base64 have more.
const FEW_CHARACTERS: usize = 8;
/// Words that people write into secrets. Random secrets hardly ever contain one of them.
const WRITTEN: [&str; 9] =
    ["secret", "password", "changeme", "change-me", "change_me", "example", "qwerty", "12345678", "taskcast"];

pub(super) fn check_access(config: &Config) -> Vec<Finding> {
    let secret = match &config.auth.keys {
        KeySource::Secret(secret) => weak_secret(secret.expose()),
        _ => None,
    };
    let outside = !config.server.host.to_canonical().is_loopback();
    let origins: Vec<&str> = config.origins.iter().collect();
    secret.into_iter().chain([origins_of(&origins, outside)]).collect()
}

fn weak_secret(secret: &str) -> Option<Finding> {
    let lower = secret.to_ascii_lowercase();
    let distinct = secret.chars().collect::<HashSet<_>>().len();
    let why = if WRITTEN.iter().any(|word| lower.contains(word)) {
        "holds a word that people often write into such settings"
    } else if distinct < FEW_CHARACTERS {
        "consists of only a few different characters"
    } else if repeats(secret.as_bytes()) {
        "repeats one piece of text"
    } else {
        return None;
    };
    // The settings themselves warn of a short secret.
    (secret.len() >= MIN_SECRET_BYTES).then(|| {
        Finding::warn(
            format!(
                "JWT_SECRET {why}: anyone who has a token can try to guess it, and then make tokens for any user"
            ),
            "make one with openssl rand -hex 32, and give it to the issuer of the tokens and to taskcast",
        )
    })
}

fn repeats(bytes: &[u8]) -> bool {
    (1..=bytes.len() / 2).any(|length| bytes.iter().skip(length).eq(&bytes[..bytes.len() - length]))
}

fn origins_of(origins: &[&str], outside: bool) -> Finding {
    let is_local = |origin: &&str| {
        let host = origin.split("://").nth(1).unwrap_or_default();
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| {
            host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    };
    const MEND: &str = "set WEBSOCKET_CORS_ORIGIN to the part of your app's URL before the path, such as \
                        https://app.example.com";
    if origins.is_empty() {
        return Finding::warn(
            "WEBSOCKET_CORS_ORIGIN names no origin: only pages of taskcast's own host can connect",
            MEND,
        );
    }
    if outside && origins.iter().all(is_local) {
        return Finding::warn(
            format!(
                "other machines can reach HOST, but in browsers only pages of {} can connect",
                origins.join(", ")
            ),
            MEND,
        );
    }
    Finding::ok(format!("pages of {} can connect", origins.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn a_secret_that_can_be_guessed_is_a_warning_that_does_not_show_it() {
        for secret in [
            "my-super-Secret-key-for-production-2026",
            "0000000000000000000000000000000000",
            "k8Wz3qPx9Lk8Wz3qPx9Lk8Wz3qPx9Lk8Wz3qPx9L",
            "your-256-bit-changeme-your-256-bit-key",
        ] {
            let finding = weak_secret(secret).expect(secret).to_string();
            assert!(finding.contains("openssl rand") && !finding.contains(secret), "{finding}");
        }
        for secret in [
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "mJ7Qp2vX0sRk5tYw8zB1cD4eF6gH9iLnOaUbVxKq3rM=",
        ] {
            assert_eq!(weak_secret(secret), None);
        }
    }

    #[test]
    fn origins_that_admit_no_web_page_are_a_warning() {
        let level = |origins: &[&str], outside| origins_of(origins, outside).level;
        assert_eq!(level(&["http://localhost:5173"], true), Level::Warn);
        assert_eq!(level(&["http://[::1]:5173", "http://127.0.0.1"], true), Level::Warn);
        assert_eq!(level(&[], false), Level::Warn);
        assert_eq!(level(&["http://localhost:5173"], false), Level::Ok);
        assert_eq!(level(&["http://localhost:5173", "https://app.example.com"], true), Level::Ok);
        assert_eq!(level(&["https://localhost.example.com"], true), Level::Ok);
    }
}
