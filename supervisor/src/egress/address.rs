//! Which addresses a backend URL stands for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// A host and port that may be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    host: Host<String>,
    port: u16,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("{url} is not a URL: {reason}")]
    NotAUrl { url: String, reason: String },
    #[error("{url} must be an absolute http or https URL with a host")]
    NotHttp { url: String },
    #[error("the host name of {url} is longer than {HOST_BYTES_MAX} bytes")]
    TooLong { url: String },
}

/// Inside a jail the socket file is `/egress/<host>:<port>`, and a socket path has 107 bytes.
const HOST_BYTES_MAX: usize = 90;

/// Metadata and platform services of cloud providers outside the link-local ranges.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

impl Target {
    pub fn of_url(text: &str) -> Result<Target, TargetError> {
        let url = Url::parse(text)
            .map_err(|error| TargetError::NotAUrl { url: text.to_owned(), reason: error.to_string() })?;
        let not_http = || TargetError::NotHttp { url: text.to_owned() };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(not_http());
        }
        let host = url.host().ok_or_else(not_http)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(not_http)?;
        let target = Target { host, port };
        if target.file_name().len() > HOST_BYTES_MAX {
            return Err(TargetError::TooLong { url: text.to_owned() });
        }
        Ok(target)
    }

    /// `host:port`, as the preload in the jail looks for it: IPv6 without brackets.
    pub fn file_name(&self) -> String {
        match &self.host {
            Host::Domain(name) => format!("{}:{}", name.to_lowercase(), self.port),
            Host::Ipv4(address) => format!("{address}:{}", self.port),
            Host::Ipv6(address) => format!("{address}:{}", self.port),
        }
    }

    /// The addresses to try. Special addresses are left out, unless the URL itself names one.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let name = match &self.host {
            Host::Ipv4(address) => return Ok(vec![SocketAddr::new(IpAddr::V4(*address), self.port)]),
            Host::Ipv6(address) => return Ok(vec![SocketAddr::new(IpAddr::V6(*address), self.port)]),
            Host::Domain(name) => name,
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), self.port)).await?.collect();
        let loopback_named = name == "localhost" || name.ends_with(".localhost");
        let allowed = |address: &SocketAddr| {
            !is_special(address.ip()) && (loopback_named || !embedded(address.ip()).is_loopback())
        };
        match found.iter().find(|address| !allowed(address)) {
            // A name that leads to a special address is not half trusted.
            Some(refused) => Err(io::Error::other(format!(
                "{name} resolves to {}, a special address that is not reached by name",
                refused.ip()
            ))),
            None => Ok(found),
        }
    }
}

/// Link-local, metadata, unspecified, broadcast and multicast addresses.
fn is_special(address: IpAddr) -> bool {
    let address = embedded(address);
    let by_kind = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
    };
    by_kind || METADATA.contains(&address)
}

/// The IPv4 address that an IPv6 address stands for (mapped, or NAT64's 64:ff9b::/96), or itself.
fn embedded(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            _ => address.to_canonical(),
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_are_targets() {
        let cases = [
            ("http://a.example/x", Some("a.example:80")),
            ("https://A.example", Some("a.example:443")),
            ("http://[::1]:8080/", Some("::1:8080")),
            ("http://127.0.0.1:9", Some("127.0.0.1:9")),
            ("ftp://a.example", None),
            ("/relative", None),
            ("a.example", None),
            ("http://", None),
            ("unix:/x", None),
        ];
        for (url, expected) in cases {
            assert_eq!(
                Target::of_url(url).ok().map(|target| target.file_name()).as_deref(),
                expected,
                "{url}"
            );
        }
        assert!(matches!(
            Target::of_url(&format!("http://{}.example", "a".repeat(90))),
            Err(TargetError::TooLong { .. })
        ));
    }

    #[test]
    fn special_addresses_are_known() {
        for special in [
            "169.254.169.254",
            "0.0.0.0",
            "fe80::1",
            "::ffff:169.254.1.1",
            "100.100.100.200",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "168.63.129.16",
            "224.0.0.1",
        ] {
            assert!(is_special(special.parse().unwrap()), "{special}");
        }
        for ordinary in ["10.0.0.1", "203.0.113.7", "2001:db8::1"] {
            assert!(!is_special(ordinary.parse().unwrap()), "{ordinary}");
        }
    }

    #[tokio::test]
    async fn a_url_may_name_loopback_itself() {
        let literal = Target::of_url("http://127.0.0.1:1").unwrap().resolve().await.unwrap();
        assert_eq!(literal, ["127.0.0.1:1".parse().unwrap()]);
        assert!(!Target::of_url("http://localhost:1").unwrap().resolve().await.unwrap().is_empty());
    }
}
