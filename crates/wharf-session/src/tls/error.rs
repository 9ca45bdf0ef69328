//! Why TLS failed, in words that name cause and remedy.

use crate::closed::Closed;
use rustls::{AlertDescription, CertificateError, Error, HandshakeType};
use std::fmt;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Server,
}

/// Why TLS failed. Its text names the cause and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    kind: TlsErrorKind,
    text: String,
}

/// What kind of failure of TLS it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The peer speaks something else: plain text, mostly.
    NotTls,
    /// The peer's certificate is signed by nobody who is trusted here.
    UnknownIssuer,
    /// The peer's certificate has expired, or is not valid yet.
    OutOfDate,
    /// The server's certificate is for another name than the one that was asked for.
    WrongName,
    /// Something else is wrong with the peer's certificate, or it has shown none where one was demanded.
    BadCertificate,
    /// The peer has refused, and has said so: it does not trust this side's certificate, say.
    Refused,
    /// The two sides have no version, cipher or protocol in common.
    Incompatible,
    /// The peer ended the stream before the handshake was done.
    EndedInHandshake,
    /// The peer ended the stream without saying so in TLS: what it sent may have been cut short, by anybody between.
    Truncated,
    /// What came is no TLS, or was changed on its way.
    Broken,
}

impl TlsError {
    /// What kind of failure it was.
    pub fn kind(&self) -> TlsErrorKind {
        self.kind
    }

    fn new(kind: TlsErrorKind, text: impl Into<String>) -> TlsError {
        TlsError { kind, text: text.into() }
    }

    /// The stream begins with bytes that TLS does not begin with.
    pub(super) fn not_tls(peer: Peer, first: &[u8]) -> TlsError {
        let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        let what = if first.iter().take(16).all(printable) { "plain text, not TLS" } else { "something else than TLS" };
        let remedy = match peer {
            Peer::Client => "it has to connect with TLS, or to a port without it",
            Peer::Server => "connect without TLS, or to the server's port for TLS",
        };
        TlsError::new(TlsErrorKind::NotTls, format!("the {peer} speaks {what}; {remedy}"))
    }

    pub(super) fn truncated(peer: Peer) -> TlsError {
        let text = format!(
            "the {peer} ended the connection without the end of TLS (close_notify); \
             what it sent may have been cut short: trust only what is known to be complete"
        );
        TlsError::new(TlsErrorKind::Truncated, text)
    }

    pub(super) fn ended_in_handshake(peer: Peer) -> TlsError {
        let remedy = match peer {
            Peer::Client => "it may have been a check whether the port is open, or it does not trust this certificate",
            Peer::Server => "it may not speak TLS on this port",
        };
        let text = format!("the {peer} ended the connection within the TLS handshake; {remedy}");
        TlsError::new(TlsErrorKind::EndedInHandshake, text)
    }

    pub(super) fn broken(peer: Peer, error: &dyn fmt::Display) -> TlsError {
        let text = format!(
            "what the {peer} sent is no proper TLS ({error}); it is faulty, or something between has changed its bytes"
        );
        TlsError::new(TlsErrorKind::Broken, text)
    }

    pub(super) fn of(error: Error, peer: Peer) -> TlsError {
        match error {
            Error::InvalidCertificate(error) => certificate(&error, peer),
            Error::NoCertificatesPresented => {
                let text = format!("the {peer} has shown no certificate; it has to have one that is trusted here");
                TlsError::new(TlsErrorKind::BadCertificate, text)
            }
            Error::AlertReceived(alert) => refused(alert, peer),
            Error::InappropriateHandshakeMessage { got_type: HandshakeType::ClientHello, .. }
                if peer == Peer::Server =>
            {
                let text = "the server sends back what it is sent, and speaks no TLS; \
                            connect without TLS, or to the server's port for TLS";
                TlsError::new(TlsErrorKind::NotTls, text)
            }
            Error::PeerIncompatible(why) => {
                let text = format!(
                    "the {peer} and this side have no version or cipher of TLS in common ({why:?}); \
                     TLS 1.2 or 1.3 is needed"
                );
                TlsError::new(TlsErrorKind::Incompatible, text)
            }
            Error::NoApplicationProtocol => {
                let text = format!(
                    "the {peer} offers no protocol (ALPN) that this side speaks; it is not meant for this port"
                );
                TlsError::new(TlsErrorKind::Incompatible, text)
            }
            error => TlsError::broken(peer, &error),
        }
    }
}

fn certificate(error: &CertificateError, peer: Peer) -> TlsError {
    use CertificateError as E;
    let (kind, text) = match error {
        E::UnknownIssuer => (
            TlsErrorKind::UnknownIssuer,
            format!(
                "the {peer}'s certificate is signed by nobody who is trusted here; if it is known to be right, \
                 give the certificate of its authority as one to trust"
            ),
        ),
        // One that is trusted has the name of the issuer, but another key.
        E::BadSignature | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            TlsErrorKind::UnknownIssuer,
            format!(
                "the {peer}'s certificate is signed with another key than the authority of that name has that is trusted \
                 here; if it is known to be right, give the certificate of its authority as one to trust"
            ),
        ),
        E::Expired | E::ExpiredContext { .. } => (
            TlsErrorKind::OutOfDate,
            format!(
                "the {peer}'s certificate has expired; it has to be renewed, if the clock of this machine is right"
            ),
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => (
            TlsErrorKind::OutOfDate,
            format!("the {peer}'s certificate is not valid yet; look at the clock of this machine, and of its maker's"),
        ),
        E::NotValidForNameContext { expected, presented } if !presented.is_empty() => (
            TlsErrorKind::WrongName,
            format!(
                "the {peer}'s certificate is for {}, not for {}; ask for a name that it has, or have this one added",
                presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
                expected.to_str(),
            ),
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => (
            TlsErrorKind::WrongName,
            format!(
                "the {peer}'s certificate is not for the name that was asked for: \
                 it needs that name as a subjectAltName; a common name alone does not count"
            ),
        ),
        // How webpki calls a certificate that is one of an authority and of a server.
        E::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => (
            TlsErrorKind::BadCertificate,
            format!(
                "the {peer}'s certificate is one for authorities; it has to be made with basicConstraints CA:FALSE"
            ),
        ),
        error => (
            TlsErrorKind::BadCertificate,
            format!("the {peer}'s certificate is not accepted ({error}); its owner has to mend it"),
        ),
    };
    TlsError::new(kind, text)
}

/// `DnsName("localhost")` and `IpAddress(127.0.0.1)` without what is around them.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn refused(alert: AlertDescription, peer: Peer) -> TlsError {
    use AlertDescription as A;
    let (kind, text) = match alert {
        A::UnknownCA | A::DecryptError | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => (
            TlsErrorKind::Refused,
            format!(
                "the {peer} does not accept this side's certificate (alert {alert:?}); it has to trust its authority, \
                 and to ask for a name that the certificate has"
            ),
        ),
        A::CertificateExpired => {
            (TlsErrorKind::Refused, format!("the {peer} says that this side's certificate has expired; renew it"))
        }
        A::CertificateRequired => {
            (TlsErrorKind::Refused, format!("the {peer} demands a certificate of this side; give it one"))
        }
        A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity | A::NoApplicationProtocol => (
            TlsErrorKind::Incompatible,
            format!("the {peer} and this side have no version, cipher or protocol in common (alert {alert:?})"),
        ),
        // What ends TLS where all is well; and what rustls says when the peer has just gone in the handshake.
        A::CloseNotify => return TlsError::ended_in_handshake(peer),
        A::UnrecognisedName => {
            (TlsErrorKind::Refused, format!("the {peer} does not know the name that was asked for; ask for another"))
        }
        alert => (TlsErrorKind::Refused, format!("the {peer} ended TLS with the alert {alert:?}; its log may say why")),
    };
    TlsError::new(kind, text)
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Client => "client",
            Peer::Server => "server",
        })
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for Closed {
    fn from(error: TlsError) -> Closed {
        Closed::Tls(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_certificate_is_told_without_what_is_around_it() {
        assert_eq!(bare("DnsName(\"localhost\")"), "localhost");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("plain"), "plain");
    }

    #[test]
    fn every_failure_says_who_and_what_to_do() {
        let failures = [
            TlsError::not_tls(Peer::Client, b"GET / HTTP/1.1"),
            TlsError::not_tls(Peer::Server, b"\x00\x01"),
            TlsError::truncated(Peer::Client),
            TlsError::ended_in_handshake(Peer::Server),
            TlsError::of(Error::DecryptError, Peer::Client),
            TlsError::of(Error::NoCertificatesPresented, Peer::Client),
            TlsError::of(Error::AlertReceived(AlertDescription::UnknownCA), Peer::Client),
            TlsError::of(CertificateError::Expired.into(), Peer::Server),
            TlsError::of(CertificateError::UnknownIssuer.into(), Peer::Server),
            TlsError::of(CertificateError::NotValidForName.into(), Peer::Server),
            TlsError::of(CertificateError::BadEncoding.into(), Peer::Server),
        ];
        for failure in failures {
            let text = failure.to_string();
            assert!(
                text.starts_with("the client") || text.starts_with("the server") || text.starts_with("what the"),
                "{text}"
            );
            assert!(text.contains([';', ':']), "no remedy: {text}");
        }
    }
}
