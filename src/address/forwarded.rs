//! Reads the headers that proxies add to a request: `X-Forwarded-For`, `-Proto` and `-Host`, or `Forwarded` (RFC 7239).
//!
//! A proxy keeps the entries that it receives and appends its own on the right. The client may have written everything
//! left of the rightmost address that is not a trusted proxy's. `Forwarded` is used only in a request without
//! `X-Forwarded-…` headers: a proxy that sets those passes on the client's `Forwarded`, unless it is configured not to.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::HeaderMap;

use crate::config::TrustedProxies;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const FORWARDED: &str = "forwarded";

/// The result of the search for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub address: IpAddr,
    /// The index of the client's entry, counted from the right.
    entry: usize,
}

/// Scheme and host with which a client reached the first trusted proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedOrigin<'a> {
    /// `http` or `https`. `None` means that no proxy names the scheme.
    pub scheme: Option<&'static str>,
    pub host: Option<Cow<'a, str>>,
}

/// One element of `Forwarded`, which one proxy added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    for_node: Option<Cow<'a, str>>,
    proto: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
}

/// Finds the client of a request from this peer: the rightmost address that is not a trusted proxy's. The search ends
/// at an entry that is not an address, because the trusted proxy that wrote it does not know the address.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> Client {
    if !proxies.contains(peer) {
        return Client { address: peer, entry: 0 };
    }
    if has_x_forwarded(headers) {
        let values = headers.get_all(FOR).iter().rev();
        let entries = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        return search(peer, entries.map(|entry| node(std::str::from_utf8(entry).ok()?)), proxies);
    }
    let elements = elements(headers);
    search(peer, elements.iter().rev().map(|element| node(element.as_ref()?.for_node.as_ref()?)), proxies)
}

/// Returns scheme and host with which the client reached the first trusted proxy. Headers from any other peer are
/// ignored.
pub fn forwarded_origin<'a>(
    peer: IpAddr,
    headers: &'a HeaderMap,
    proxies: &TrustedProxies,
) -> ForwardedOrigin<'a> {
    if !proxies.contains(peer) {
        return ForwardedOrigin::default();
    }
    let entry = client(peer, headers, proxies).entry;
    if has_x_forwarded(headers) {
        let hosts: Vec<&str> = values(headers, HOST).collect();
        return ForwardedOrigin {
            scheme: scheme(values(headers, PROTO)),
            // The host at the position of the client's entry. If there are fewer hosts, because inner proxies add none,
            // the first host.
            host: hosts.get(hosts.len().saturating_sub(entry + 1)).map(|host| Cow::Borrowed(*host)),
        };
    }
    let mut elements: Vec<Element<'a>> =
        elements(headers).into_iter().map(Option::unwrap_or_default).collect();
    let scheme = scheme(elements.iter().filter_map(|element| element.proto.as_deref()));
    let first = elements.len().saturating_sub(entry + 1);
    let host = elements.drain(first..).find_map(|element| element.host);
    ForwardedOrigin { scheme, host }
}

/// Returns `https` if any proxy reports it, because proxies behind the one that ends TLS report `http`. A client can't
/// hide that a request is https by adding an `http` entry of its own.
fn scheme<'a>(words: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let mut found = None;
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            // Some proxies report `wss` or `ws` for a WebSocket upgrade.
            "https" | "wss" => return Some("https"),
            "http" | "ws" => found = Some("http"),
            _ => {}
        }
    }
    found
}

fn has_x_forwarded(headers: &HeaderMap) -> bool {
    [FOR, PROTO, HOST].iter().any(|name| headers.contains_key(*name))
}

/// The entries of all header lines of this name, from the left.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

fn search(
    peer: IpAddr,
    mut entries: impl Iterator<Item = Option<IpAddr>>,
    proxies: &TrustedProxies,
) -> Client {
    let (mut address, mut trusted) = (peer, 0_usize);
    while proxies.contains(address) {
        let Some(next) = entries.next().flatten() else { break };
        address = next;
        trusted += 1;
    }
    Client { address, entry: trusted.saturating_sub(1) }
}

/// Parses `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`, and an address with an
/// obfuscated port, such as `192.0.2.1:_x`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.rsplit_once(":_").map_or(text, |(address, _)| address);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The elements of all `Forwarded` lines, from the left. `None` stands for a line that can't be parsed.
fn elements(headers: &HeaderMap) -> Vec<Option<Element<'_>>> {
    let mut elements = Vec::new();
    for line in headers.get_all(FORWARDED) {
        match line.to_str().ok().and_then(line_elements) {
            Some(found) => elements.extend(found.into_iter().map(Some)),
            None => elements.push(None),
        }
    }
    elements
}

fn line_elements(line: &str) -> Option<Vec<Element<'_>>> {
    let (mut elements, mut element, mut rest) = (Vec::new(), Element::default(), line);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            rest = parameter(rest, &mut element)?.trim_start_matches([' ', '\t']);
        }
        match rest.chars().next() {
            Some(';') => {}
            Some(',') => elements.push(std::mem::take(&mut element)),
            Some(_) => return None,
            None => break,
        }
        rest = &rest[1..];
    }
    elements.push(element);
    // Empty elements of a list are ignored (RFC 9110 §5.6.1).
    elements.retain(|element| *element != Element::default());
    Some(elements)
}

/// Parses `name=value` into the element, and returns the rest of the text.
fn parameter<'a>(text: &'a str, element: &mut Element<'a>) -> Option<&'a str> {
    let (name, rest) = text.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => quoted(rest)?,
        None => {
            // Some proxies don't quote the colons and brackets of addresses.
            let end = rest.find([',', ';', ' ', '\t', '"']).unwrap_or(rest.len());
            (Cow::Borrowed(&rest[..end]), &rest[end..])
        }
    };
    let field = match name.to_ascii_lowercase().as_str() {
        "for" => &mut element.for_node,
        "proto" => &mut element.proto,
        "host" => &mut element.host,
        other if other.is_empty() || other.contains([' ', '\t', ',', ';', '"']) => return None,
        _ => return Some(rest),
    };
    // A duplicate name is ambiguous, so the whole line is refused.
    if field.replace(value).is_some() { None } else { Some(rest) }
}

/// The text up to the closing quotation mark, and the rest of the text.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let (mut value, mut characters) = (String::new(), text.chars());
    loop {
        match characters.next()? {
            '"' => return Some((Cow::Owned(value), characters.as_str())),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, http::HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::parse("10.0.0.0/8,fd00::/8").expect("networks")
    }

    #[track_caller]
    fn from_peer(
        peer: &str,
        lines: &[(&'static str, &str)],
    ) -> (String, Option<&'static str>, Option<String>) {
        let (headers, peer) = (headers(lines), peer.parse().expect("an address"));
        let origin = forwarded_origin(peer, &headers, &proxies());
        let address = client(peer, &headers, &proxies()).address;
        (address.to_string(), origin.scheme, origin.host.map(Cow::into_owned))
    }

    fn from_proxy(lines: &[(&'static str, &str)]) -> (String, Option<&'static str>, Option<String>) {
        from_peer("10.0.0.1", lines)
    }

    fn expected(
        address: &str,
        scheme: &'static str,
        host: &str,
    ) -> (String, Option<&'static str>, Option<String>) {
        (address.to_owned(), Some(scheme), Some(host.to_owned()))
    }

    #[test]
    fn every_notation_of_rfc_7239_is_read() {
        for line in [
            "for=198.51.100.7;proto=https;host=gate.test",
            "For=\"198.51.100.7\";PROTO=HTTPS;Host=\"gate.test\"",
            "host=gate.test;for=\"198.51.100.7:_port\";by=10.0.0.1;proto=wss",
            "for=198.51.100.7:80;proto=\"ht\\tps\";host=\"ga\\te.test\";secret=\"a,b;c\\\"d\"",
            ",, for=198.51.100.7;;proto=https;host=gate.test;",
        ] {
            assert_eq!(
                from_proxy(&[("forwarded", line)]),
                expected("198.51.100.7", "https", "gate.test"),
                "{line}"
            );
            assert_eq!(
                from_peer("192.0.2.1", &[("forwarded", line)]),
                ("192.0.2.1".to_owned(), None, None),
                "{line}"
            );
        }
        let v6 =
            from_proxy(&[("forwarded", "for=\"[2001:db8::1]:4711\";proto=http;host=\"[2001:db8::2]:8080\"")]);
        assert_eq!(v6, expected("2001:db8::1", "http", "[2001:db8::2]:8080"));
    }

    #[test]
    fn elements_left_of_the_client_are_ignored() {
        let line = "for=203.0.113.9;host=evil.test, for=198.51.100.7;proto=https;host=gate.test, for=10.2.2.2;proto=http;host=inner";
        assert_eq!(from_proxy(&[("forwarded", line)]), expected("198.51.100.7", "https", "gate.test"));
        let lines = line.split(", ").map(|element| ("forwarded", element)).collect::<Vec<_>>();
        assert_eq!(
            from_proxy(&lines),
            expected("198.51.100.7", "https", "gate.test"),
            "each on a line of its own"
        );
        let line = "for=198.51.100.7;proto=https, for=10.2.2.2;host=gate.test";
        assert_eq!(from_proxy(&[("forwarded", line)]), expected("198.51.100.7", "https", "gate.test"));
        let line = "host=evil.test, for=198.51.100.7;proto=https";
        assert_eq!(from_proxy(&[("forwarded", line)]), ("198.51.100.7".to_owned(), Some("https"), None));
    }

    #[test]
    fn a_line_that_can_not_be_parsed_ends_the_search() {
        for garbage in [
            "for",
            "for=\"198.51.100.7",
            "for=198.51.100.7;for=203.0.113.9",
            "for=198.51.100.7 host=x",
            "=x",
            "for=\"a\\",
            "for=198.51.100.7;;\"",
            "for=\"198.51.100.7\"x",
            "f or=1",
            "for = 198.51.100.7",
        ] {
            assert_eq!(
                from_proxy(&[("forwarded", garbage)]),
                ("10.0.0.1".to_owned(), None, None),
                "{garbage}"
            );
            let behind = from_proxy(&[
                ("forwarded", garbage),
                ("forwarded", "for=198.51.100.8;proto=https;host=gate.test"),
            ]);
            assert_eq!(behind, expected("198.51.100.8", "https", "gate.test"), "{garbage}");
        }
        for unknown in ["for=unknown", "for=_hidden", "for=\"_hidden:1\"", "for=\"\"", "proto=http"] {
            assert_eq!(from_proxy(&[("forwarded", unknown)]).0, "10.0.0.1", "{unknown}");
        }
    }

    #[test]
    fn forwarded_is_ignored_if_there_is_an_x_forwarded_header() {
        let line = ("forwarded", "for=203.0.113.9;proto=https;host=evil.test");
        for other in [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "gate.test"),
        ] {
            let (address, scheme, host) = from_proxy(&[line, other]);
            assert_ne!(address, "203.0.113.9");
            assert_ne!((scheme, host.as_deref()), (Some("https"), Some("evil.test")));
        }
    }

    #[test]
    fn a_chain_that_was_encrypted_anywhere_is_https() {
        for (words, scheme) in [
            (&["https"][..], Some("https")),
            (&["wss"], Some("https")),
            (&["WSS"], Some("https")),
            (&["ws"], Some("http")),
            (&["https,http"], Some("https")),
            (&["https, http, http"], Some("https")),
            (&["http,https"], Some("https")),
            (&["wss", "http"], Some("https")),
            (&["http", "http"], Some("http")),
            (&["ftp"], None),
            (&[""], None),
        ] {
            let lines: Vec<_> = words.iter().map(|word| ("x-forwarded-proto", *word)).collect();
            assert_eq!(from_proxy(&lines).1, scheme, "{words:?}");
        }
    }

    #[test]
    fn the_host_is_taken_from_the_entry_of_the_client() {
        let host_of = |addresses: &str, hosts: &str| {
            from_proxy(&[("x-forwarded-for", addresses), ("x-forwarded-host", hosts)]).2
        };
        assert_eq!(host_of("198.51.100.7", "gate.test").as_deref(), Some("gate.test"));
        assert_eq!(host_of("198.51.100.7", "evil.test, gate.test").as_deref(), Some("gate.test"));
        assert_eq!(host_of("198.51.100.7, 10.2.2.2", "gate.test, inner").as_deref(), Some("gate.test"));
        assert_eq!(
            host_of("198.51.100.7, 10.2.2.2", "evil.test, gate.test, inner").as_deref(),
            Some("gate.test")
        );
        assert_eq!(
            host_of("198.51.100.7, 10.2.2.2", "gate.test").as_deref(),
            Some("gate.test"),
            "the inner one adds nothing"
        );
    }

    proptest! {
        #[test]
        fn no_header_panics(
            lines in prop::collection::vec("[ -~]{0,40}|(for=|host=|proto=|[,;\"\\\\ =]|198[.]51[.]100[.]7|10[.]2[.]2[.]2|\\[::1\\]){0,12}", 0..4),
            name in prop::sample::select(vec!["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]),
        ) {
            let lines: Vec<_> = lines.iter().map(|line| (name, line.as_str())).collect();
            from_proxy(&lines);
            prop_assert_eq!(from_peer("192.0.2.1", &lines), ("192.0.2.1".to_owned(), None, None));
        }
    }
}
