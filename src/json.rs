//! Repairs JSON that comes from outside. JavaScript's strings may contain half of a surrogate pair: a program that cuts
//! a string inside an emoji has one. `JSON.stringify` writes the half as an escape such as `\ud83d`, which stands for
//! no character. serde_json refuses such an escape. Browsers and Node replace it by U+FFFD when they send text, and so
//! does this module.

use std::borrow::Cow;

use memchr::memmem;

/// The length of an escape such as `\ud83d`. Its replacement has the same length, so positions in errors stay right.
const ESCAPE_BYTES: usize = 6;
const REPLACEMENT: &[u8; ESCAPE_BYTES] = br"\ufffd";

/// The text with `\ufffd` in place of each escape that is half of a surrogate pair. A text without such an escape is not
/// copied. A text that was valid JSON is not changed; one that was not valid for another reason remains invalid.
pub fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let Some(changed) = replaced(text.as_bytes()) else { return Cow::Borrowed(text) };
    // Only ASCII was replaced, and only by ASCII.
    String::from_utf8(changed).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The same for bytes that need not be UTF-8.
pub fn replace_lone_surrogates_in(bytes: &[u8]) -> Cow<'_, [u8]> {
    replaced(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned)
}

/// `None` means that there is nothing to replace.
fn replaced(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    let mut paired = None;
    for at in memmem::find_iter(bytes, br"\u") {
        let Some(unit) = surrogate_at(bytes, at) else { continue };
        if paired == Some(at) {
            continue;
        }
        let next = at + ESCAPE_BYTES;
        if unit.is_high && surrogate_at(bytes, next).is_some_and(|next| !next.is_high) {
            paired = Some(next);
            continue;
        }
        changed.get_or_insert_with(|| bytes.to_vec())[at..next].copy_from_slice(REPLACEMENT);
    }
    changed
}

/// Half of a surrogate pair.
#[derive(Clone, Copy)]
struct Surrogate {
    /// The first half, `\ud800` to `\udbff`.
    is_high: bool,
}

/// The surrogate whose escape begins at this position.
fn surrogate_at(bytes: &[u8], at: usize) -> Option<Surrogate> {
    let [b'\\', b'u', b'd' | b'D', second, third, fourth] = bytes.get(at..at + ESCAPE_BYTES)? else {
        return None;
    };
    let is_high = match second {
        b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => true,
        b'c'..=b'f' | b'C'..=b'F' => false,
        _ => return None,
    };
    let is_hex = third.is_ascii_hexdigit() && fourth.is_ascii_hexdigit();
    // A backslash that is itself escaped does not begin an escape.
    let backslashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
    (is_hex && backslashes % 2 == 0).then_some(Surrogate { is_high })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn read(text: &str) -> String {
        match serde_json::from_str(&replace_lone_surrogates(text)) {
            Ok(Value::String(read)) => read,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_half_of_a_pair_becomes_the_replacement_character() {
        for (text, expected) in [
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""cut \uD83D""#, "cut \u{fffd}"),
            (r#""\udc00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}😀\u{fffd}"),
            (r#""\uD83D\uDe00""#, "😀"),
            (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
            (r#""\ud83d\n\ude00""#, "\u{fffd}\n\u{fffd}"),
            (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\\ud83d""#, r"\ud83d"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
            (r#""\\\\ud83d""#, r"\\ud83d"),
            (r#""\"\udFFF\"""#, "\"\u{fffd}\""),
            (r#""\ud7ff\ue000""#, "\u{d7ff}\u{e000}"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn halves_are_replaced_in_names_and_in_values() {
        let text = r#"{"\ud83d":["\udc00",{"a\udbff":"\ud800"}]}"#;
        let value: Value = serde_json::from_str(&replace_lone_surrogates(text)).expect("JSON");
        assert_eq!(value, serde_json::json!({"\u{fffd}": ["\u{fffd}", {"a\u{fffd}": "\u{fffd}"}]}));
    }

    #[test]
    fn invalid_json_stays_invalid() {
        for text in [
            r#""\ud8""#,
            r#""\ud83"#,
            r#""\ud83g""#,
            r#"\ud83d"#,
            r#"{"a":\ud83d}"#,
            r#""\ud83d"#,
            r#""\"#,
            "\\u",
        ] {
            assert!(serde_json::from_str::<Value>(&replace_lone_surrogates(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_left_to_the_parser() {
        let bytes = b"\"\xed\xa0\xbd\\ud83d\"";
        assert_eq!(&*replace_lone_surrogates_in(bytes), b"\"\xed\xa0\xbd\\ufffd\"");
        assert!(serde_json::from_slice::<Value>(&replace_lone_surrogates_in(bytes)).is_err());
    }

    /// Writes a string as JavaScript may write it, unit by unit. `style` selects the notation of each unit.
    fn written(units: &[(u16, u8)]) -> String {
        let mut text = String::from("\"");
        for (unit, style) in units {
            match (char::from_u32(u32::from(*unit)), style % 3) {
                (Some(c @ ('"' | '\\')), 0) => text.extend(['\\', c]),
                (Some(c), 0) if !c.is_control() => text.push(c),
                (_, 1) => text.push_str(&format!("\\u{unit:04X}")),
                _ => text.push_str(&format!("\\u{unit:04x}")),
            }
        }
        text + "\""
    }

    fn units() -> impl Strategy<Value = Vec<(u16, u8)>> {
        let unit = prop_oneof![
            any::<u16>(),
            0xd800..0xe000_u16,
            0xd83d..0xd83f_u16,
            0xde00..0xde02_u16,
            Just(0x5c_u16),
            Just(0x22_u16),
            Just(0x75_u16),
            Just(0x64_u16),
        ];
        prop::collection::vec((unit, any::<u8>()), 0..24)
    }

    /// A slow reference implementation. Returns the text with each escape of a half replaced, and whether there was
    /// one.
    fn by_the_letter(text: &str) -> (String, bool) {
        let (mut rest, mut out, mut had) = (text, String::new(), false);
        let unit = |text: &str| -> Option<u16> {
            let digits = text.strip_prefix("\\u")?.get(..4)?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            let mut kept = true;
            if c == '\\' {
                length = match (unit(rest), rest.get(6..).and_then(unit)) {
                    (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
                    (Some(0xd800..0xe000), _) => {
                        kept = false;
                        6
                    }
                    (Some(_), _) => 6,
                    (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
                };
            }
            had |= !kept;
            out.push_str(if kept { &rest[..length] } else { "\\ufffd" });
            rest = &rest[length..];
        }
        (out, had)
    }

    proptest! {
        #[test]
        fn strings_are_read_as_javascript_sends_them(units in units()) {
            let expected = String::from_utf16_lossy(&units.iter().map(|(unit, _)| *unit).collect::<Vec<_>>());
            prop_assert_eq!(read(&written(&units)), expected);
        }

        #[test]
        fn valid_json_is_not_touched(texts in prop::collection::vec(any::<String>(), 0..6), styles in prop::collection::vec(any::<u8>(), 64)) {
            let styled = texts.iter().map(|text| {
                written(&text.encode_utf16().zip(styles.iter().copied().cycle()).collect::<Vec<_>>())
            });
            // A half can't be written raw, because the result would not be text. `written` escapes it.
            let json = format!("[{}]", styled.collect::<Vec<_>>().join(","));
            prop_assert!(serde_json::from_str::<Value>(&json).is_ok());
            prop_assert!(matches!(replace_lone_surrogates(&json), Cow::Borrowed(_)));
        }

        #[test]
        fn any_text_is_read_as_if_halves_were_the_replacement_character(
            parts in prop::collection::vec(
                prop::sample::select(vec![r"\", r"\u", "u", r"\ud83d", r"\uDE00", r"\\", "\"", "[", "]", "{", "}", ":", ",", "d83d", "\u{e4}", "1", r"\n"]),
                0..24,
            ),
        ) {
            let text = parts.concat();
            let (expected, had) = by_the_letter(&text);
            let replaced = replace_lone_surrogates(&text);
            prop_assert_eq!(&*replaced, &expected);
            prop_assert_eq!(matches!(replaced, Cow::Owned(_)), had);
            let before = serde_json::from_str::<Value>(&text).ok();
            let after = serde_json::from_str::<Value>(&replaced).ok();
            prop_assert!(before.is_none() || before == after);
        }
    }
}
