//! Parses a `.env` file as Node's dotenv does. It replaces `\n` and `\r` in double quotes, and nothing else in a value.
//!
//! Every accepted value is the value that Node's dotenv gives; `tests/e2e/dotenv.test.js` compares the two. This parser
//! refuses lines that Node's dotenv skips, and names whose value is on another line, because they are mistakes.

/// An entry of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub value: String,
    /// The number of the name's line, counted from 1.
    pub line: usize,
    pub warnings: Vec<ValueWarning>,
}

/// Why a value may differ from what its author intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueWarning {
    /// A `#` directly after other characters begins a comment.
    Comment,
    /// The value begins with a quote that does not end it.
    OpenQuote,
    /// The value contains `$`, `\` or `` ` ``. Other dotenv libraries than Node's replace them, and so did earlier
    /// builds.
    Literal,
}

/// The numbers of lines that can't be read, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnreadableLines(pub Vec<usize>);

/// Returns the entries in the order of the file. The last entry of a name counts.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, UnreadableLines> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut entries = Vec::new();
    let mut unreadable = lines_with_separators(&text);
    let (mut rest, mut line) = (&*text, 1);
    loop {
        let start = rest.trim_start_matches(is_space);
        line += count_lines(rest, start);
        rest = start;
        if rest.is_empty() {
            break;
        }
        if !rest.starts_with('#') {
            match assignment(rest) {
                Some((entry, after)) => {
                    entries.push(Entry { line, ..entry });
                    line += count_lines(rest, after);
                    rest = after;
                }
                None => unreadable.push(line),
            }
        }
        // The rest of the line is a comment or can't be read.
        rest = rest.find('\n').map_or("", |end| &rest[end..]);
    }
    unreadable.sort_unstable();
    unreadable.dedup();
    if unreadable.is_empty() { Ok(entries) } else { Err(UnreadableLines(unreadable)) }
}

/// Finds lines with U+2028 or U+2029. JavaScript ends a line there and other programs do not, so nobody could see where
/// a value ends.
fn lines_with_separators(text: &str) -> Vec<usize> {
    let lines = text.split('\n').enumerate();
    lines.filter(|(_, line)| line.contains(['\u{2028}', '\u{2029}'])).map(|(index, _)| index + 1).collect()
}

/// The number of line ends between `from` and `to`, which is a suffix of `from`.
fn count_lines(from: &str, to: &str) -> usize {
    let passed = &from.as_bytes()[..from.len() - to.len()];
    passed.iter().filter(|byte| **byte == b'\n').count()
}

/// Parses `NAME=value` or `NAME: value`, with an optional `export` before it. Also returns the rest of the text.
fn assignment(text: &str) -> Option<(Entry, &str)> {
    let exported = text.strip_prefix("export").filter(|rest| rest.starts_with(is_blank));
    exported
        .and_then(|rest| plain_assignment(rest.trim_start_matches(is_blank)))
        .or_else(|| plain_assignment(text))
}

fn plain_assignment(text: &str) -> Option<(Entry, &str)> {
    let end = text.find(|c: char| !is_name_char(c)).filter(|end| *end > 0)?;
    let (name, rest) = text.split_at(end);
    let rest = match rest.trim_start_matches(is_blank).strip_prefix('=') {
        Some(rest) => rest,
        None => rest.strip_prefix(':').filter(|rest| rest.starts_with(is_blank))?,
    };
    let (value, warnings, rest) = quoted(rest).unwrap_or_else(|| unquoted(rest));
    Some((Entry { name: name.to_owned(), value, line: 0, warnings }, rest))
}

/// Parses a value in quotes, which may have several lines.
fn quoted(text: &str) -> Option<(String, Vec<ValueWarning>, &str)> {
    let text = text.trim_start_matches(is_space);
    let quote = text.chars().next().filter(|first| is_quote(*first))?;
    let inner = &text[1..];
    let mut end = None;
    for (index, _) in inner.match_indices(quote) {
        if ends_a_value(&inner[index + 1..]) {
            end = Some(index);
        }
        // A quote after a backslash need not be the last one.
        if !inner[..index].ends_with('\\') {
            break;
        }
    }
    let end = end?;
    let raw = &inner[..end];
    let warnings =
        if quote != '\'' && is_literal(raw, quote) { vec![ValueWarning::Literal] } else { Vec::new() };
    Some((replace_escapes(raw, quote), warnings, &inner[end + 1..]))
}

/// Returns true if a value may end here: only a comment follows on its line.
fn ends_a_value(rest: &str) -> bool {
    let rest = rest.trim_start_matches(is_blank);
    rest.is_empty() || rest.starts_with(['\n', '#'])
}

/// Parses a value without quotes, or with quotes that do not enclose it. It ends at the first `#` of its line.
fn unquoted(text: &str) -> (String, Vec<ValueWarning>, &str) {
    let end = text.find(['#', '\n']).unwrap_or(text.len());
    let (raw, rest) = text.split_at(end);
    let mut warnings = Vec::new();
    // `NAME=# text` is a setting without a value, and a comment.
    let is_empty = raw.is_empty() && rest.chars().nth(1).is_none_or(is_space);
    if rest.starts_with('#') && !raw.ends_with(is_space) && !is_empty {
        warnings.push(ValueWarning::Comment);
    }
    let raw = raw.trim_matches(is_space);
    let first = raw.chars().next().unwrap_or_default();
    let enclosed = raw.strip_prefix(first).and_then(|rest| rest.strip_suffix(first));
    let value = match enclosed.filter(|_| is_quote(first)) {
        Some(enclosed) => enclosed,
        None => {
            if is_quote(first) {
                warnings.push(ValueWarning::OpenQuote);
            }
            raw
        }
    };
    if is_literal(value, first) {
        warnings.push(ValueWarning::Literal);
    }
    (replace_escapes(value, first), warnings, rest)
}

/// Replaces `\n` and `\r` in double quotes by line ends. Nothing else is replaced.
fn replace_escapes(raw: &str, quote: char) -> String {
    match quote {
        '"' => raw.replace("\\n", "\n").replace("\\r", "\r"),
        _ => raw.to_owned(),
    }
}

fn is_literal(raw: &str, quote: char) -> bool {
    let replaced = if quote == '"' { raw.replace("\\n", "") } else { raw.to_owned() };
    quote == '`' || replaced.contains(['$', '\\'])
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"' | '`')
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// White space as JavaScript defines it. The byte order mark is white space, too.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

fn is_blank(c: char) -> bool {
    c != '\n' && is_space(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn values(text: &str) -> Vec<(String, String)> {
        let entries = parse(text).unwrap_or_else(|lines| panic!("{text:?}: {lines:?}"));
        entries.into_iter().map(|entry| (entry.name, entry.value)).collect()
    }

    /// The value of the only entry.
    #[track_caller]
    fn value(text: &str) -> String {
        let mut all = values(&format!("A={text}"));
        assert_eq!(all.len(), 1, "{text:?}: {all:?}");
        all.remove(0).1
    }

    fn unreadable(text: &str) -> Vec<usize> {
        parse(text).expect_err("a line that can't be read").0
    }

    #[test]
    fn a_value_is_read_as_it_is_written() {
        for (raw, read) in [
            (r#""aB3$xY""#, "aB3$xY"),
            ("aB3$xY", "aB3$xY"),
            ("${HOME}", "${HOME}"),
            (r#""${HOME:-x}""#, "${HOME:-x}"),
            (r"a\$b\\c\ d", r"a\$b\\c\ d"),
            (r#""a\$b\\c\"d\t""#, r#"a\$b\\c\"d\t"#),
            ("$(id)`id`!%&*()[]{}|;<>?~^", "$(id)`id`!%&*()[]{}|;<>?~^"),
            ("a=b==", "a=b=="),
            ("it's", "it's"),
            (" a b  ", "a b"),
            ("", ""),
            ("\u{a0}x\u{feff}", "x"),
            ("é🎉", "é🎉"),
        ] {
            assert_eq!(value(raw), read, "{raw}");
        }
    }

    #[test]
    fn quotes_enclose_a_value_and_line_ends_are_expanded_only_in_double_quotes() {
        for (raw, read) in [
            (r"'a # b'", "a # b"),
            (r#""a # b" # c"#, "a # b"),
            ("`it's \"it\"`", "it's \"it\""),
            (r"'a\nb'", r"a\nb"),
            (r"a\nb", r"a\nb"),
            (r"`a\nb`", r"a\nb"),
            (r#""a\nb\rc""#, "a\nb\rc"),
            (r#""a\\nb""#, "a\\\nb"),
            ("'  a  '", "  a  "),
            ("''", ""),
            ("\"a\nb\r\nc\rd\"", "a\nb\nc\nd"),
            (r"'a\'b'", r"a\'b"),
            (r"'a\'", r"a\"),
            (r"'a\' b'", r"a\' b"),
            // Quotes that enclose nothing are part of the value.
            ("'a", "'a"),
            (r#""a\nb"#, "\"a\nb"),
            ("'a' b", "'a' b"),
            (r#""a" "b""#, r#"a" "b"#),
            ("'", "'"),
        ] {
            assert_eq!(value(raw), read, "{raw}");
        }
    }

    #[test]
    fn comments_names_and_separators_are_parsed() {
        let text = "\u{feff}# a comment\n\n  export A = 1 # one\nB: 2\nexport=3\nA.b-C_4='x' # '\n\n A=4\nE=\nF:\t\nG=#\n";
        let read: Vec<_> = values(text);
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
        let wanted = [
            ("A", "1"),
            ("B", "2"),
            ("export", "3"),
            ("A.b-C_4", "x"),
            ("A", "4"),
            ("E", ""),
            ("F", ""),
            ("G", ""),
        ];
        assert_eq!(read, wanted);
        assert_eq!(values("A='x\ny'\r\nB=\"z\"\n"), [("A".into(), "x\ny".into()), ("B".into(), "z".into())]);
    }

    #[test]
    fn lines_that_can_not_be_read_are_named_by_number() {
        assert_eq!(unreadable("A=1\nhunter2\n\n# x\nB C=2\n=3\nD=4\n"), [2, 5, 6]);
        assert_eq!(unreadable("A='x\ny\nz'\r\nnonsense"), [4]);
        for text in
            ["A", "A:1", "A :1", "A:\nB=1", "A\n=1", "export\nA=1", "é=1", "A=x\u{2028}B=y", "- A=1", "A:=1"]
        {
            assert_eq!(unreadable(text)[0], 1, "{text:?}");
        }
    }

    #[test]
    fn an_entry_knows_its_line_and_what_is_doubtful_about_it() {
        let warnings = |text: &str| {
            let text = format!("\nB='\n'\nA={text}");
            let entry = parse(&text).expect("readable").remove(1);
            assert_eq!(entry.line, 4);
            entry.warnings
        };
        for text in ["a b", "'a$b#c'", "\"a\\nb\"", "a # b", "# b", "''", "\"a#b\" # c"] {
            assert_eq!(warnings(text), [], "{text}");
        }
        assert_eq!(warnings("a#b"), [ValueWarning::Comment]);
        assert_eq!(warnings("#b"), [ValueWarning::Comment]);
        assert_eq!(warnings("'a"), [ValueWarning::OpenQuote]);
        assert_eq!(warnings("\"a#b"), [ValueWarning::Comment, ValueWarning::OpenQuote]);
        for text in ["a$b", "\"a$b\"", r"a\b", r#""a\"b""#, "`a`"] {
            assert_eq!(warnings(text), [ValueWarning::Literal], "{text}");
        }
    }

    proptest! {
        /// Every value can be quoted in such a way that it is read unchanged.
        #[test]
        fn quotes_keep_a_value(value in "[ -~é\n]{0,40}", quote in prop::sample::select(vec!['\'', '`', '"'])) {
            prop_assume!(!value.contains(quote) && !value.ends_with('\\'));
            prop_assume!(quote != '"' || !(value.contains("\\n") || value.contains("\\r")));
            let text = format!("B=1\nA={quote}{value}{quote} # {value:?}\nC=2\n");
            let read = parse(&text).expect("readable");
            prop_assert_eq!(read.len(), 3);
            prop_assert_eq!(&read[1].value, &value);
            prop_assert_eq!((&*read[2].name, &*read[2].value), ("C", "2"));
            prop_assert_eq!(read[2].line, 3 + value.matches('\n').count());
        }

        /// No text causes a panic, a line number that does not exist, or an invalid name.
        #[test]
        fn any_text_is_read_or_refused(text in "([A-C=:#'\"`\\\\ \n\r$x]|export |\u{feff}|\u{2028}|é){0,60}") {
            let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
            match parse(&text) {
                Ok(entries) => for entry in entries {
                    prop_assert!((1..=lines).contains(&entry.line));
                    prop_assert!(!entry.name.is_empty() && entry.name.chars().all(is_name_char));
                },
                Err(UnreadableLines(found)) => {
                    prop_assert!(!found.is_empty() && found.iter().all(|line| (1..=lines).contains(line)));
                }
            }
        }
    }
}
