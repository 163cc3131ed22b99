//! Where a subsystem listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::error::TargetError;

/// An address that a subsystem can be reached at: TCP over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddress(pub SocketAddr);

impl ListenAddress {
    /// Reads the form of the RPC: `traddr` is a numeric address, `trsvcid` a port (0 lets the
    /// kernel choose; empty is 4420), `adrfam` `ipv4`, `ipv6` (in any case) or absent.
    ///
    /// # Errors
    /// [`TargetError::Invalid`], naming the field.
    pub fn parse(traddr: &str, trsvcid: &str, adrfam: Option<&str>) -> Result<Self, TargetError> {
        let bad = |what: String| TargetError::Invalid(what);
        let ip: IpAddr = traddr.parse().map_err(|_| {
            bad(format!(
                "traddr {traddr:?} is not a numeric IPv4 or IPv6 address"
            ))
        })?;
        let port = match trsvcid {
            "" => 4420,
            text => text
                .parse()
                .map_err(|_| bad(format!("trsvcid {text:?} is not a port (0 to 65535)")))?,
        };
        let address = Self(SocketAddr::new(ip, port));
        match adrfam.map(str::to_ascii_lowercase).as_deref() {
            None => Ok(address),
            Some(family) if family == address.adrfam().to_ascii_lowercase() => Ok(address),
            Some("ipv4" | "ipv6") => Err(bad(format!(
                "adrfam {} does not fit traddr {traddr}",
                adrfam.unwrap_or_default()
            ))),
            Some(other) => Err(bad(format!("adrfam {other:?} is neither ipv4 nor ipv6"))),
        }
    }

    /// Whether a connection with this local end came in here.
    pub fn takes(&self, local: SocketAddr) -> bool {
        let everywhere = self.0.ip().is_unspecified();
        self.0.port() == local.port()
            && (self.0.ip() == local.ip()
                // A listener on :: takes IPv4 as well.
                || (everywhere && (self.0.is_ipv6() || local.is_ipv4())))
    }

    /// `TCP`, the only transport there is.
    pub fn trtype(&self) -> &'static str {
        "TCP"
    }

    /// `IPv4` or `IPv6`.
    pub fn adrfam(&self) -> &'static str {
        if self.0.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// The numeric address.
    pub fn traddr(&self) -> String {
        self.0.ip().to_string()
    }

    /// The port.
    pub fn trsvcid(&self) -> String {
        self.0.port().to_string()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rpc_form_is_read() {
        let a = ListenAddress::parse("127.0.0.1", "4420", Some("IPv4")).unwrap();
        assert_eq!(
            (a.traddr(), a.trsvcid()),
            ("127.0.0.1".into(), "4420".into())
        );
        assert_eq!(a.adrfam(), "IPv4");
        let b = ListenAddress::parse("::1", "", Some("ipv6")).unwrap();
        assert_eq!((b.0.port(), b.adrfam()), (4420, "IPv6"));
    }

    #[test]
    fn bad_fields_are_named() {
        let message = |r: Result<ListenAddress, TargetError>| r.unwrap_err().to_string();
        assert!(message(ListenAddress::parse("localhost", "1", None)).contains("traddr"));
        assert!(message(ListenAddress::parse("1.2.3.4", "70000", None)).contains("trsvcid"));
        assert!(message(ListenAddress::parse("1.2.3.4", "1", Some("ipv6"))).contains("adrfam"));
        assert!(message(ListenAddress::parse("1.2.3.4", "1", Some("ib"))).contains("adrfam"));
    }
}
