//! Determines the address that identifies a client.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

use super::forwarded;
use crate::config::TrustedProxies;

/// The bits of an IPv6 address that a provider assigns to a customer. The customer chooses the other bits.
const CUSTOMER_PREFIX: u128 = u128::MAX << 64;

/// An IPv4 address, or the first half of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddress(IpAddr);

/// The address of a request that did not come over a connection.
impl Default for ClientAddress {
    fn default() -> Self {
        Self(Ipv6Addr::UNSPECIFIED.into())
    }
}

impl ClientAddress {
    /// Uses the peer's address and ignores proxy headers.
    pub fn of_peer(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & CUSTOMER_PREFIX).into(),
            address => address,
        })
    }

    /// The address from which the first trusted proxy received the request.
    pub fn of_request(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> Self {
        Self::of_peer(forwarded::client(peer, headers, proxies).address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn client(peer: &str, headers: &[&'static str]) -> String {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append("x-forwarded-for", http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let proxies = TrustedProxies::parse("10.0.0.0/8,fd00::/8").expect("networks");
        ClientAddress::of_request(peer.parse().expect("an address"), &map, &proxies).0.to_string()
    }

    #[test]
    fn only_the_headers_of_a_trusted_proxy_are_used() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7", "a dual-stack listener");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1", "the proxy sends no header");
    }

    #[test]
    fn the_rightmost_untrusted_hop_counts() {
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9, 198.51.100.7"]),
            "198.51.100.7",
            "the client invented the left one"
        );
        assert_eq!(client("10.0.0.1", &["198.51.100.7,10.9.9.9, fd00::2"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.2.2.2"]),
            "198.51.100.7",
            "two headers"
        );
        assert_eq!(client("10.0.0.1", &["198.51.100.7", "10.2.2.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3", "all are trusted proxies");
    }

    #[test]
    fn ports_and_brackets_are_not_part_of_the_address() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["[2001:db8:1:2::3]:4711"]), "2001:db8:1:2::");
        assert_eq!(client("10.0.0.1", &["[2001:db8:1:2::3]"]), "2001:db8:1:2::");
        assert_eq!(client("10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("2001:db8:1:2:aaaa::1", &[]), client("2001:db8:1:2:bbbb::1", &[]), "one customer");
        assert_ne!(client("2001:db8:1:2::1", &[]), client("2001:db8:1:3::1", &[]));
    }

    /// A client that sends an invalid header must not be able to choose its address, or to have none.
    #[test]
    fn an_invalid_entry_ends_the_search() {
        for garbage in
            ["unknown", "", ",", "198.51.100.7 203.0.113.9", "[::1", "1.2.3", "256.1.1.1", "a, b", "\u{e4}"]
        {
            assert_eq!(client("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        assert_eq!(client("10.0.0.1", &["203.0.113.9, unknown, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(client("10.0.0.1", &["unknown, 198.51.100.7"]), "198.51.100.7");
    }
}
