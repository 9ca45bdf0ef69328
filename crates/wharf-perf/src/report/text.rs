//! Addresses and times as both forms of the report write them.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(time: SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// An IPv4 address that came as a mapped one, as what it is.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // With its scope, without which a link-local address cannot be answered.
        IpAddr::V6(_) => address,
        four => (four, address.port()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_plain_and_others_keep_their_scope() {
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3).into();
        assert_eq!(plain(scoped), scoped);
        assert_eq!(plain("[::ffff:1.2.3.4]:5".parse().unwrap()), "1.2.3.4:5".parse().unwrap());
    }
}
