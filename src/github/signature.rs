//! Checks that a request body was signed with one of the configured secrets.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SCHEME: &str = "sha256=";

/// Returns whether `signature`, the value of `X-Hub-Signature-256`, is the signature of `body` with one of the secrets.
/// The comparison takes constant time.
pub fn is_signed<'a>(signature: &str, body: &[u8], secrets: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let Some(claimed) = signature.strip_prefix(SCHEME).and_then(from_hex) else { return false };
    secrets.into_iter().any(|secret| {
        // HMAC accepts a key of any length.
        Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mut mac| {
            mac.update(body);
            mac.verify_slice(&claimed).is_ok()
        })
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From GitHub's documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn githubs_own_example_is_accepted() {
        assert!(is_signed(SIGNATURE, BODY, [SECRET]));
        assert!(is_signed(&SIGNATURE.to_uppercase().replace("SHA256", "sha256"), BODY, [SECRET]));
        assert!(is_signed(SIGNATURE, BODY, [&b"an older one"[..], SECRET, b""]));
    }

    #[test]
    fn any_other_signature_is_refused() {
        assert!(!is_signed(SIGNATURE, b"Hello, World?", [SECRET]));
        assert!(!is_signed(SIGNATURE, BODY, [&b"another"[..]]));
        assert!(!is_signed(SIGNATURE, BODY, []));
        let hex = &SIGNATURE["sha256=".len()..];
        for odd in [
            "",
            "sha256=",
            hex,
            &format!("sha1={hex}"),
            &format!("SHA256={hex}"),
            &SIGNATURE[..SIGNATURE.len() - 2],
            &SIGNATURE[..SIGNATURE.len() - 1],
            &format!("{SIGNATURE}00"),
            &format!(" {SIGNATURE}"),
            &SIGNATURE.replace("75", "zz"),
            &SIGNATURE.replace("75", "ä"),
            &SIGNATURE.replacen("75", "+5", 1),
        ] {
            assert!(!is_signed(odd, BODY, [SECRET]), "{odd}");
        }
    }
}
