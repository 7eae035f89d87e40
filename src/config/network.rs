//! Addresses and networks of trusted proxies.

use std::net::IpAddr;

/// An address and the number of its leading bits that identify the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The proxies whose `X-Forwarded-…` and `Forwarded` headers are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// `None` means that an entry is neither an address nor a network.
    pub fn parse(text: &str) -> Option<Self> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(Network::parse).collect::<Option<Vec<_>>>().map(Self)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Network {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    /// A dual-stack listener sees IPv4 peers as `::ffff:a.b.c.d`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let ignored = width - u32::from(self.bits);
            ignored == width || a >> ignored == b >> ignored
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
            (IpAddr::V6(a), IpAddr::V4(b)) => same(u128::from(a), b.to_ipv6_mapped().to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn trusts(networks: &str, address: &str) -> bool {
        TrustedProxies::parse(networks).expect("valid").contains(address.parse().expect("an address"))
    }

    #[test]
    fn networks_contain_their_addresses() {
        let networks = "10.0.0.0/8, 192.0.2.7,fd00::/8,";
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "fd12::1"] {
            assert!(trusts(networks, address), "{address}");
        }
        for address in ["11.0.0.1", "192.0.2.8", "fe80::1", "::1", "::ffff:11.0.0.1"] {
            assert!(!trusts(networks, address), "{address}");
        }
        assert!(trusts("0.0.0.0/0", "203.0.113.9") && !trusts("0.0.0.0/0", "2001:db8::1"));
        assert!(trusts("::/0", "2001:db8::1"));
        assert!(trusts("::ffff:10.0.0.0/104", "10.200.0.1") && !trusts("::ffff:10.0.0.0/104", "11.0.0.1"));
    }

    #[test]
    fn an_entry_that_is_not_a_network_is_refused() {
        for text in ["10.0.0.0/33", "::/129", "proxy.example", "10.0.0.0/", "10.0.0.0/-1", "10.0.0"] {
            assert_eq!(TrustedProxies::parse(text), None, "{text}");
        }
        assert!(TrustedProxies::parse(" , ").expect("valid").is_empty());
    }
}
