//! Names of addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

/// What names one or more addresses of sockets: a [`SocketAddr`], several, a name and a port, or all of it in one text.
///
/// It is std's [`ToSocketAddrs`], and understands one form of text more: `[fe80::1%eth0]:80`, an address with the
/// *name* of its zone in brackets, as URLs and other programs write it. A host's name is looked up in the call, which
/// then waits for the answer.
pub trait Addresses {
    /// The addresses, at least one.
    ///
    /// # Errors
    ///
    /// The name cannot be looked up, or has no address (`InvalidInput`).
    fn addresses(&self) -> io::Result<Vec<SocketAddr>>;
}

fn resolve(name: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name resolved to no address"));
    }
    Ok(addresses)
}

/// `[address%zone]:port`, with a zone that is a name: std takes numbers only, and the system's resolver no brackets.
fn zoned(text: &str) -> Option<(&str, u16)> {
    let (inside, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    inside.contains('%').then_some(())?;
    Some((inside, port.parse().ok()?))
}

impl Addresses for str {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        match zoned(self) {
            Some(pair) if self.parse::<SocketAddr>().is_err() => resolve(pair),
            _ => resolve(self),
        }
    }
}

impl Addresses for String {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().addresses()
    }
}

impl<A: Addresses + ?Sized> Addresses for &A {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).addresses()
    }
}

impl Addresses for [SocketAddr] {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(self)
    }
}

impl Addresses for Vec<SocketAddr> {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(&self[..])
    }
}

macro_rules! as_std {
    ($($name:ty),*) => {$(
        impl Addresses for $name {
            fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
                resolve(self.clone())
            }
        }
    )*};
}

as_std!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16),
    (&str, u16),
    (String, u16)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_in_brackets_may_be_a_name_or_a_number() {
        assert_eq!(zoned("[fe80::1%lo]:80"), Some(("fe80::1%lo", 80)));
        assert_eq!(zoned("[::1]:80"), None);
        assert_eq!(zoned("[fe80::1%lo]:http"), None);
        let number = "[fe80::1%1]:80".addresses().unwrap();
        assert!(matches!(number[..], [SocketAddr::V6(address)] if address.scope_id() == 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_name_and_the_number_of_a_zone_are_the_same_address() {
        // The loopback interface is the first.
        assert_eq!("[fe80::1%lo]:80".addresses().unwrap(), "[fe80::1%1]:80".addresses().unwrap());
        assert_eq!("[fe80::1%lo]:80".addresses().unwrap(), "fe80::1%lo:80".addresses().unwrap());
    }

    #[test]
    fn what_std_takes_is_taken_and_no_address_is_an_error() {
        let one: SocketAddr = "127.0.0.1:7".parse().unwrap();
        assert_eq!(one.addresses().unwrap(), [one]);
        assert_eq!("127.0.0.1:7".addresses().unwrap(), [one]);
        assert_eq!(("127.0.0.1", 7).addresses().unwrap(), [one]);
        assert_eq!(vec![one, one].addresses().unwrap(), [one, one]);
        assert_eq!([][..].addresses().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!("127.0.0.1".addresses().is_err(), "there is no port");
    }
}
