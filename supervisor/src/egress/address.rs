//! Which addresses a backend URL stands for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
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
    #[error("{url} must be an absolute URL with a host")]
    NoHost { url: String },
    #[error("{url} must name its port, because {scheme} has no usual one that is known here")]
    NoPort { url: String, scheme: String },
    #[error("the host name of {url} must have letters, digits, '.', '-' and '_' only")]
    Characters { url: String },
    #[error("the host name of {url} is longer than {HOST_BYTES_MAX} bytes")]
    TooLong { url: String },
}

/// Why an address is not tried.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{name} resolves to {address}, a special address that is not reached by name")]
    Special { name: String, address: IpAddr },
    #[error("{0}")]
    Lookup(#[from] io::Error),
}

/// Inside a jail the socket file is `/egress/<host>:<port>`, and a socket path has 107 bytes.
const HOST_BYTES_MAX: usize = 90;

/// The ports of schemes that the URL standard does not know.
const PORTS: [(&str, u16); 9] = [
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("redis", 6379),
    ("rediss", 6379),
    ("mongodb", 27017),
    ("amqp", 5672),
    ("amqps", 5671),
    ("nats", 4222),
];

/// Metadata and platform services of cloud providers outside the ranges of `is_special`.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

impl Target {
    pub fn of_url(text: &str) -> Result<Target, TargetError> {
        let url = text.to_owned();
        let parsed = Url::parse(text)
            .map_err(|error| TargetError::NotAUrl { url: url.clone(), reason: error.to_string() })?;
        let host = match parsed.host() {
            Some(Host::Domain("")) | None => return Err(TargetError::NoHost { url }),
            Some(host) => canonical(host.to_owned()),
        };
        let port = parsed.port_or_known_default().or_else(|| usual_port(parsed.scheme()));
        let Some(port) = port else {
            return Err(TargetError::NoPort { url, scheme: parsed.scheme().to_owned() });
        };
        if matches!(&host, Host::Domain(name) if !name.bytes().all(is_name_byte)) {
            return Err(TargetError::Characters { url });
        }
        let target = Target { host, port };
        if target.file_name().len() > HOST_BYTES_MAX {
            return Err(TargetError::TooLong { url });
        }
        Ok(target)
    }

    /// `host:port`, as the preload in the jail looks for it: IPv6 without brackets.
    pub fn file_name(&self) -> String {
        match &self.host {
            Host::Domain(name) => format!("{name}:{}", self.port),
            Host::Ipv4(address) => format!("{address}:{}", self.port),
            Host::Ipv6(address) => format!("{address}:{}", self.port),
        }
    }

    /// The addresses to try. A special address is refused, unless the URL itself names it or the
    /// operator allows it.
    pub async fn resolve(&self, allowed: &[IpNet]) -> Result<Vec<SocketAddr>, ResolveError> {
        let name = match &self.host {
            Host::Ipv4(address) => return Ok(vec![SocketAddr::new(IpAddr::V4(*address), self.port)]),
            Host::Ipv6(address) => return Ok(vec![SocketAddr::new(IpAddr::V6(*address), self.port)]),
            Host::Domain(name) => name,
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), self.port)).await?.collect();
        let loopback_named = name == "localhost" || name.ends_with(".localhost");
        let may_be_reached = |address: IpAddr| {
            let address = embedded(address);
            allowed.iter().any(|network| network.contains(&address))
                || (loopback_named && address.is_loopback())
                || !is_special(address)
        };
        match found.iter().find(|found| !may_be_reached(found.ip())) {
            // A name that leads to a special address is not half trusted.
            Some(special) => Err(ResolveError::Special { name: name.clone(), address: special.ip() }),
            None => Ok(found),
        }
    }
}

/// Whether clients of a backend may speak TLS: its URL does not say that they do not.
pub fn may_speak_tls(url: &str) -> bool {
    !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "ws"))
}

/// In schemes that the URL standard does not know, a host is a text as it was written.
fn canonical(host: Host<String>) -> Host<String> {
    match host {
        Host::Domain(name) => name.parse().map_or_else(|_| Host::Domain(name.to_lowercase()), Host::Ipv4),
        literal => literal,
    }
}

fn usual_port(scheme: &str) -> Option<u16> {
    PORTS.iter().find(|(known, _)| *known == scheme).map(|(_, port)| *port)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Loopback, link-local, metadata, unspecified, broadcast, multicast and reserved addresses (IANA's
/// registries of special-purpose addresses). Private networks are where backends of a company live.
fn is_special(address: IpAddr) -> bool {
    let by_kind = match address {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || first == 0
                || first >= 240
                || (first, second, third) == (192, 0, 0)
        }
        IpAddr::V6(v6) => {
            let site_local = v6.segments()[0] & 0xffc0 == 0xfec0;
            // Teredo's 2001::/32 and the local NAT64's 64:ff9b:1::/48 lead to IPv4 addresses that are not told.
            let tunnelled = matches!(v6.segments(), [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..]);
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || site_local
                || tunnelled
        }
    };
    by_kind || METADATA.contains(&address)
}

/// The IPv4 address that an IPv6 address stands for (mapped, translated, compatible, NAT64's
/// 64:ff9b::/96, or 6to4's 2002::/16), or itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0 | 0xffff, 0, high, low] => v4(high, low),
        _ => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_say_so_are_without_tls() {
        for plain in ["http://a.example", "ws://a.example/socket"] {
            assert!(!may_speak_tls(plain), "{plain}");
        }
        for other in
            ["https://a.example", "wss://a.example", "postgres://a.example/sales", "redis://a.example", "a"]
        {
            assert!(may_speak_tls(other), "{other}");
        }
    }

    #[test]
    fn a_target_is_the_host_and_the_port_of_a_url() {
        let cases = [
            ("http://a.example/x", Some("a.example:80")),
            ("https://A.example", Some("a.example:443")),
            ("http://[::1]:8080/", Some("::1:8080")),
            ("http://127.0.0.1:9", Some("127.0.0.1:9")),
            ("wss://a.example/socket", Some("a.example:443")),
            ("postgres://user:secret@Db.example/sales", Some("db.example:5432")),
            ("redis://127.0.0.1:7000", Some("127.0.0.1:7000")),
            ("tcp://a.example:25", Some("a.example:25")),
            ("tcp://a.example", None),
            ("tcp://a%2fb:1", None),
            ("tcp://..:1/", Some("..:1")),
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
            "127.0.0.1",
            "::1",
            "::",
            "169.254.169.254",
            "0.0.0.0",
            "fe80::1",
            "fec0::1",
            "::ffff:169.254.1.1",
            "::127.0.0.1",
            "100.100.100.200",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001::1",
            "64:ff9b:1::7f00:1",
            "::ffff:0:127.0.0.1",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(is_special(embedded(special.parse().unwrap())), "{special}");
        }
        for ordinary in ["10.0.0.1", "203.0.113.7", "2001:db8::1", "2002:cb00:7107::1"] {
            assert!(!is_special(embedded(ordinary.parse().unwrap())), "{ordinary}");
        }
    }

    #[tokio::test]
    async fn a_url_may_name_loopback_itself() {
        let resolve =
            async |url: &str, allowed: &[IpNet]| Target::of_url(url).unwrap().resolve(allowed).await;
        assert_eq!(resolve("http://127.0.0.1:1", &[]).await.unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert!(!resolve("http://localhost:1", &[]).await.unwrap().is_empty());
    }
}
