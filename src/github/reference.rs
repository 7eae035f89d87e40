//! Finds the issues that the text of a pull request says it closes, by GitHub's keywords, such as `Fixes #42`.

use super::search::{is_repo_char, repo_name};

/// GitHub accepts no longer texts.
const MAX_BYTES: usize = 256 * 1024;
pub(super) const MAX_REFERENCES: usize = 20;
const KEYWORDS: [&str; 9] =
    ["close", "closes", "closed", "fix", "fixes", "fixed", "resolve", "resolves", "resolved"];

/// A reference to an issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// `owner/name`. `None` means the repository in which the text was written.
    pub repo: Option<String>,
    pub number: u64,
}

/// The issues that `text` says it closes, without duplicates, in the order of the text. Links must lead to `host`, such as
/// `https://github.com`. HTML comments and code are ignored.
pub(super) fn closed_issues(text: &str, host: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut rest = &text[..text.floor_char_boundary(MAX_BYTES)];
    let mut before = ' ';
    while let Some(c) = rest.chars().next().filter(|_| found.len() < MAX_REFERENCES) {
        if let Some(after) = after_hidden(rest) {
            (rest, before) = (after, ' ');
            continue;
        }
        let word = word(rest);
        if word.is_empty() {
            // A run of backticks without an end is skipped as a whole. The search must not start again inside the run.
            let length = if c == '`' { backticks(rest) } else { c.len_utf8() };
            (rest, before) = (&rest[length..], c);
            continue;
        }
        rest = &rest[word.len()..];
        let is_keyword = KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
        if is_keyword
            && before != '-'
            && let Some((reference, after)) = reference(rest, host)
        {
            if !found.contains(&reference) {
                found.push(reference);
            }
            rest = after;
        }
        before = 'x';
    }
    found
}

/// The text after the comment or code span that `text` begins with. `None` means that `text` does not begin with one.
fn after_hidden(text: &str) -> Option<&str> {
    if let Some(comment) = text.strip_prefix("<!--") {
        return Some(comment.split_once("-->").map_or("", |(_, after)| after));
    }
    let run = backticks(text);
    if run == 0 {
        return None;
    }
    let mut inside = &text[run..];
    while let Some(start) = inside.find('`') {
        inside = &inside[start..];
        let length = backticks(inside);
        inside = &inside[length..];
        if length == run {
            return Some(inside);
        }
    }
    None
}

fn backticks(text: &str) -> usize {
    text.bytes().take_while(|byte| *byte == b'`').count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The reference at the beginning of `text`, which follows a keyword, and the text after the reference.
fn reference<'a>(text: &'a str, host: &str) -> Option<(Reference, &'a str)> {
    const BLANK: [char; 2] = [' ', '\t'];
    let mut target = text.trim_start_matches(BLANK);
    match target.strip_prefix(':') {
        Some(rest) => target = rest.trim_start_matches(BLANK),
        None if target.len() == text.len() => return None,
        None => {}
    }
    let (repo, number) = if let Some(number) = target.strip_prefix('#') {
        (None, number)
    } else if let Some(number) = strip_prefix_ignoring_case(target, "GH-") {
        (None, number)
    } else if let Some(path) = strip_prefix_ignoring_case(target, host) {
        let (repo, rest) = leading_repo(path.strip_prefix('/')?)?;
        (Some(repo), rest.strip_prefix("/issues/")?)
    } else {
        let (repo, rest) = leading_repo(target)?;
        (Some(repo), rest.strip_prefix('#')?)
    };
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = number.split_at(digits);
    let number = digits.parse::<u32>().ok().filter(|number| *number > 0)?;
    let ends = after.chars().next().is_none_or(|c| !is_word(c));
    ends.then(|| (Reference { repo, number: number.into() }, after))
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `owner/name` at the beginning of `text`, and the text after it.
fn leading_repo(text: &str) -> Option<(String, &str)> {
    let part = |text: &str| text.find(|c| !is_repo_char(c)).unwrap_or(text.len());
    let owner = part(text);
    let name = part(text[owner..].strip_prefix('/')?);
    let (repo, rest) = text.split_at(owner + 1 + name);
    Some((repo_name(repo)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "https://github.com";

    fn closed(text: &str) -> Vec<(Option<String>, u64)> {
        closed_issues(text, HOST).into_iter().map(|found| (found.repo, found.number)).collect()
    }

    fn here(numbers: &[u64]) -> Vec<(Option<String>, u64)> {
        numbers.iter().map(|number| (None, *number)).collect()
    }

    #[test]
    fn every_keyword_is_found_in_any_case_with_and_without_a_colon() {
        for keyword in KEYWORDS {
            for keyword in [
                keyword.to_owned(),
                keyword.to_uppercase(),
                keyword.replacen(&keyword[..1], &keyword[..1].to_uppercase(), 1),
            ] {
                for text in [
                    format!("{keyword} #42"),
                    format!("{keyword}: #42"),
                    format!("{keyword}:#42"),
                    format!("{keyword} : \t#42."),
                    format!("({keyword} GH-42)"),
                    format!("x\n{keyword} gh-42, y"),
                ] {
                    assert_eq!(closed(&text), here(&[42]), "{text}");
                }
            }
        }
    }

    #[test]
    fn every_way_to_name_an_issue_is_found() {
        let elsewhere = vec![(Some("Acme/web.site_2-x".to_owned()), 7)];
        assert_eq!(closed("Fixes Acme/web.site_2-x#7"), elsewhere);
        assert_eq!(closed("Fixes https://github.com/Acme/web.site_2-x/issues/7#issuecomment-1"), elsewhere);
        assert_eq!(closed("Fixes HTTPS://GitHub.com/Acme/web.site_2-x/issues/7"), elsewhere);
        assert_eq!(closed("fix #1, closes #2 and RESOLVES #3; fixes #1 again"), here(&[1, 2, 3]));
        assert_eq!(closed("Überfällig: behebt nichts. Fixes #5 – ja"), here(&[5]));
    }

    #[test]
    fn other_texts_are_not_references() {
        for text in [
            "",
            "#42",
            "see #42",
            "fixes 42",
            "fixes#42",
            "fixes\n\n#42",
            "fixes # 42",
            "fixes #",
            "fixes #0",
            "fixes #42abc",
            "fixes #4_2",
            "fixes #99999999999999999999",
            "prefixes #42",
            "hotfix #42",
            "fixés #42",
            "bug-fix #42",
            "_fixes #42",
            "fixing #42",
            "fixes issue #42",
            "fixes owner#42",
            "fixes /repo#42",
            "fixes owner/#42",
            "fixes a/b/c#42",
            "fixes ../..#42",
            "fixes https://github.com.evil.test/a/b/issues/42",
            "fixes https://evil.test/a/b/issues/42",
            "fixes https://github.com/a/b/pull/42",
            "fixes https://github.com/a/issues/42",
            "<!-- for example: Fixes #42 -->",
            "<!-- fixes #42",
            "`fixes #42`",
            "``a ` fixes #42 ``",
            "```\nfixes #42\n```",
        ] {
            assert_eq!(closed(text), [], "{text}");
        }
        assert_eq!(closed("<!-- Fixes #1 --> fixes #2 `fixes #3` fixes #4 ` ``` fixes #5"), here(&[2, 4, 5]));
    }

    #[test]
    fn long_and_hostile_texts_take_limited_work() {
        let many: String = (1..1000).map(|number| format!("fixes #{number} ")).collect();
        assert_eq!(closed(&many).len(), MAX_REFERENCES);
        let far = format!("{}fixes #1", "ä".repeat(MAX_BYTES));
        assert_eq!(closed(&far), []);
        let runs: String = (1..600).map(|length| format!("{} ", "`".repeat(length))).collect();
        for hostile in [
            "`".repeat(1 << 20),
            runs,
            "fixes a".repeat(1 << 17),
            "fixes ".repeat(1 << 17),
            "<!--".repeat(1 << 18),
        ] {
            assert_eq!(closed(&hostile), []);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}(fixes|Closes:)? {0,2}(#|GH-|a/b#|https://github.com/a/b/issues/)?[0-9]{0,12}.{0,60}") {
            closed(&text);
        }

        #[test]
        fn a_reference_is_found_between_anything_harmless(before in "[a-z .,(\n]{0,40}[ (\n]", after in "([ .,)\n][a-z .,)\n]{0,40})?", number in 1_u32..) {
            let text = format!("{before}Fixes #{number}{after}");
            prop_assert!(closed(&text).contains(&(None, number.into())), "{}", text);
        }
    }
}
