//! TLS for the program's servers and its client: their options, and what they come to. Built without the feature `tls`,
//! the program has no such options, and everything here is plain.

use clap::Args;
use std::io;
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::path::PathBuf;
#[cfg(feature = "tls")]
use wharf_session::{ClientTls, ServerTls, TlsErrorKind};
use wharf_session::{Closed, Link, Service, Session};

#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// Serve over TLS, with the certificate in this file (PEM: the server's own first, then those that signed it)
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key to it (PEM, not encrypted)
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub struct ClientOptions {
    /// Connect over TLS; trusts whom the system trusts
    #[cfg(feature = "tls")]
    #[arg(long)]
    pub tls: bool,
    /// Trust the certificates in this file (PEM) and no others: an authority's, or the server's own
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub tls_ca: Option<PathBuf>,
    /// The name that the server's certificate has to be for [default: HOST]
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_name: Option<String>,
    /// For tests only: believe every server, so that anybody between can read and change everything
    #[cfg(feature = "tls")]
    #[arg(long, requires = "tls", conflicts_with_all = ["tls_ca", "tls_name"])]
    pub tls_insecure: bool,
}

/// How a server listens.
#[derive(Debug)]
pub struct Acceptor {
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
}

impl ServerOptions {
    /// Reads the files, if there are to be any.
    pub fn acceptor(&self) -> Result<Acceptor, String> {
        #[cfg(feature = "tls")]
        {
            let (Some(certificates), Some(key)) = (&self.tls_cert, &self.tls_key) else {
                return Ok(Acceptor { tls: None });
            };
            let tls = ServerTls::from_pem_files(certificates, key);
            Ok(Acceptor { tls: Some(tls.map_err(|error| format!("cannot serve over TLS: {error}"))?) })
        }
        #[cfg(not(feature = "tls"))]
        Ok(Acceptor {})
    }
}

impl Acceptor {
    pub fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    pub fn listen<S: Session>(
        &self,
        service: &Service,
        addresses: &[SocketAddr],
        session: impl Fn() -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return service.listen_tls(addresses, tls.clone(), move |_| session());
        }
        service.listen(addresses, move |_| session())
    }

    pub fn adopt_listener<S: Session>(
        &self,
        service: &Service,
        listener: std::net::TcpListener,
        session: impl Fn() -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return service.adopt_listener_tls(listener, tls.clone(), move |_| session());
        }
        service.adopt_listener(listener, move |_| session())
    }
}

/// How the client connects.
#[derive(Debug)]
pub struct Connector {
    #[cfg(feature = "tls")]
    tls: Option<(ClientTls, String)>,
}

impl ClientOptions {
    /// `server`: as it was given, HOST:PORT.
    pub fn connector(&self, server: &str) -> Result<Connector, String> {
        #[cfg(feature = "tls")]
        {
            if !self.tls {
                return Ok(Connector { tls: None });
            }
            let tls = if self.tls_insecure {
                eprintln!(
                    "wharf: --tls-insecure: the server is not checked; anybody between can read and change everything"
                );
                ClientTls::insecure()
            } else if let Some(file) = &self.tls_ca {
                ClientTls::from_ca_file(file)
            } else {
                ClientTls::system()
            };
            let tls = tls.map_err(|error| format!("cannot connect over TLS: {error}"))?;
            let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
            // An address of IPv6 stands in brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok(Connector { tls: Some((tls, self.tls_name.clone().unwrap_or_else(|| host.to_owned()))) })
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = server;
            Ok(Connector {})
        }
    }
}

impl Connector {
    pub fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    pub fn connect(&self, service: &Service, peer: SocketAddr, session: impl Session) -> io::Result<Link> {
        #[cfg(feature = "tls")]
        if let Some((tls, name)) = &self.tls {
            return service.connect_tls(peer, name, tls, session);
        }
        service.connect(peer, session)
    }
}

/// What to do about the end of a session over TLS, as the program's options call it, if its own text does not say.
pub fn remedy(reason: &Closed) -> Option<&'static str> {
    match reason {
        #[cfg(feature = "tls")]
        Closed::Tls(error) => Some(match error.kind() {
            TlsErrorKind::UnknownIssuer => ": --tls-ca FILE",
            TlsErrorKind::WrongName => ": --tls-name NAME",
            _ => "",
        }),
        Closed::HandshakeTimeout => Some("; does the server speak TLS on this port?"),
        _ => None,
    }
}
