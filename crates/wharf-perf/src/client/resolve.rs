//! The server's addresses.

use super::options::Options;
use crate::protocol::{Failure, code};
use std::net::{SocketAddr, ToSocketAddrs};

/// Those that can be reached as the options say; at least one.
pub(super) fn resolve(options: &Options) -> Result<Vec<SocketAddr>, Failure> {
    let Options { host, port, family, .. } = options;
    let unknown = |why: String| Failure::new(code::CONNECT, format!("unable to connect to server: {why}"));
    let addresses = (&**host, *port).to_socket_addrs();
    let addresses = addresses.map_err(|error| unknown(format!("{host:?}: {error}")))?;
    let fits = |address: &SocketAddr| match family {
        Some(4) => address.is_ipv4(),
        Some(6) => address.is_ipv6(),
        _ => true,
    };
    let addresses: Vec<SocketAddr> = addresses.filter(fits).collect();
    if addresses.is_empty() {
        return Err(unknown(format!("{host:?} has no address of the family that was asked for (-4, -6)")));
    }
    // From an address of one family there is no way to the other.
    let Some(own) = options.origin.address else { return Ok(addresses) };
    let addresses: Vec<SocketAddr> = addresses.into_iter().filter(|it| it.is_ipv4() == own.is_ipv4()).collect();
    match addresses.is_empty() {
        true => Err(unknown(format!("{host:?} has no address of the family of {own} (-B)"))),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_reached_from_this_ends_are_tried() {
        let mut options = Options::new("127.0.0.1", 5201);
        assert_eq!(resolve(&options).unwrap(), ["127.0.0.1:5201".parse().unwrap()]);
        options.origin.address = Some("127.0.0.1".parse().unwrap());
        assert_eq!(resolve(&options).unwrap().len(), 1);
        options.origin.address = Some("::1".parse().unwrap());
        assert!(resolve(&options).unwrap_err().text.contains("of the family of ::1 (-B)"));
        options.family = Some(6);
        assert!(resolve(&options).unwrap_err().text.contains("(-4, -6)"));
    }
}
