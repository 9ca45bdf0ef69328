//! What a side brings to the handshake: certificates, keys, and whom it trusts.

use super::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// What a server needs for TLS: its certificate and the key to it. Clones are cheap.
///
/// TLS 1.2 and 1.3. Certificates of clients are not asked for; a configuration of your own can
/// ([`from_config`](ServerTls::from_config)).
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

/// Whom a client trusts. Clones are cheap, and share the sessions that can be resumed.
///
/// TLS 1.2 and 1.3. It shows no certificate of its own; a configuration of your own can
/// ([`from_config`](ClientTls::from_config)).
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

/// Named here, and not the process's default: that can be set by anybody, and is missing if nobody has.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// More than any file of certificates has: a system's whole bundle has a quarter of a megabyte.
const FILE_MAX: u64 = 16 << 20;

fn read(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // What a file says of its length is not asked: a device says nothing, and never ends.
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() as u64 > FILE_MAX => Err(invalid(format!(
            "the {what} {} has more than {FILE_MAX} bytes; give a file in PEM form",
            path.display()
        ))),
        Ok(_) => Ok(content),
        Err(error) => {
            let text = format!("the {what} {} cannot be read: {error}; give a file in PEM form", path.display());
            Err(io::Error::new(error.kind(), text))
        }
    }
}

impl ServerTls {
    /// From two files in PEM form: the certificate, followed by those between it and the authority; and its private key
    /// (PKCS#8, PKCS#1 or SEC1, not encrypted).
    ///
    /// # Errors
    ///
    /// A file cannot be read, or does not hold what it should; the key is not the certificate's. The text names the
    /// file and the remedy.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<ServerTls> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let chain = chain_of(&read(certificates, "certificate file")?, &certificates.display().to_string())?;
        let secret = key_of(&read(key, "key file")?, &key.display().to_string())?;
        ServerTls::make(chain, secret, &format!("{} and {}", certificates.display(), key.display()))
    }

    /// Like [`from_pem_files`](ServerTls::from_pem_files), from their contents.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> io::Result<ServerTls> {
        let chain = chain_of(certificates, "the certificate text")?;
        ServerTls::make(chain, key_of(key, "the key text")?, "certificate and key")
    }

    /// From a configuration of your own: for clients' certificates, several names, keys in hardware. rustls is at
    /// [`wharf_session::rustls`](crate::rustls).
    pub fn from_config(config: impl Into<Arc<ServerConfig>>) -> ServerTls {
        ServerTls(config.into())
    }

    /// The protocols that are spoken here (ALPN), the best first. A client that offers others only is refused; one that
    /// offers none is not. [`Link::tls`](crate::Link::tls) tells which was agreed on.
    pub fn alpn(mut self, protocols: &[&str]) -> ServerTls {
        Arc::make_mut(&mut self.0).alpn_protocols = bytes(protocols);
        self
    }

    fn make(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, whence: &str) -> io::Result<ServerTls> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => invalid(format!(
                    "certificate and key do not belong together ({whence}); \
                     give the key that the certificate was made with, and the server's own certificate first"
                )),
                error => invalid(format!(
                    "certificate and key cannot be used ({whence}): {error}; \
                     RSA (2048 bits or more), ECDSA (P-256, P-384) and Ed25519 keys can"
                )),
            })?;
        Ok(ServerTls(Arc::new(config)))
    }

    pub(crate) fn accept(&self) -> io::Result<Tls> {
        let connection = ServerConnection::new(self.0.clone());
        let connection =
            connection.map_err(|error| invalid(format!("the TLS configuration cannot be used: {error}")))?;
        Ok(Tls::new(Connection::Server(connection)))
    }
}

impl ClientTls {
    /// Trusts whom the system trusts.
    ///
    /// # Errors
    ///
    /// The system has no list of authorities.
    pub fn system() -> io::Result<ClientTls> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A system's list often has some that are too old for anybody's taste.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            let text = format!(
                "this system has no list of certificate authorities{why}; install it (on Debian: ca-certificates), \
                 or give a file with the certificates to trust"
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        ClientTls::trusting(roots)
    }

    /// Trusts the certificates in a file in PEM form, and nobody else: authorities, or a server's own that nobody has
    /// signed.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not hold what it should. The text names the file and the remedy.
    pub fn from_ca_file(path: impl AsRef<Path>) -> io::Result<ClientTls> {
        let path = path.as_ref();
        ClientTls::from_ca(&read(path, "certificate file")?, &path.display().to_string())
    }

    /// Like [`from_ca_file`](ClientTls::from_ca_file), from its content.
    pub fn from_ca_pem(certificates: &[u8]) -> io::Result<ClientTls> {
        ClientTls::from_ca(certificates, "the certificate text")
    }

    /// From a configuration of your own: with a certificate of the client's, say. rustls is at
    /// [`wharf_session::rustls`](crate::rustls).
    pub fn from_config(config: impl Into<Arc<ClientConfig>>) -> ClientTls {
        ClientTls(config.into())
    }

    /// For tests only: believes every server, so that anybody between can read and change everything.
    pub fn insecure() -> io::Result<ClientTls> {
        let provider = provider();
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Everybody(provider)))
            .with_no_client_auth();
        Ok(ClientTls(Arc::new(config)))
    }

    /// The protocols that are spoken here (ALPN), the best first.
    pub fn alpn(mut self, protocols: &[&str]) -> ClientTls {
        Arc::make_mut(&mut self.0).alpn_protocols = bytes(protocols);
        self
    }

    fn from_ca(pem: &[u8], whence: &str) -> io::Result<ClientTls> {
        let mut roots = RootCertStore::empty();
        for certificate in chain_of(pem, whence)? {
            roots.add(certificate).map_err(|error| {
                invalid(format!("a certificate in {whence} cannot be trusted: {error}; give another one"))
            })?;
        }
        ClientTls::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> io::Result<ClientTls> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(ClientTls(Arc::new(config)))
    }

    /// `server_name`: a host's name, or an address.
    pub(crate) fn connect(&self, server_name: &str) -> io::Result<Tls> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| {
            invalid(format!(
                "{server_name:?} is no name that a certificate can be for; give a host's name or an address"
            ))
        })?;
        let connection = ClientConnection::new(self.0.clone(), name);
        let connection =
            connection.map_err(|error| invalid(format!("the TLS configuration cannot be used: {error}")))?;
        Ok(Tls::new(Connection::Client(connection)))
    }
}

fn bytes(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// `whence`: where it comes from, for errors.
fn chain_of(pem: &[u8], whence: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| {
        invalid(format!(
            "{whence} is damaged: {error:?}; a certificate in PEM form begins with -----BEGIN CERTIFICATE-----"
        ))
    })?;
    if chain.is_empty() {
        let why = if key_of(pem, whence).is_ok() { "holds a key and no certificate" } else { "holds no certificate" };
        return Err(invalid(format!(
            "{whence} {why}; give one in PEM form, which begins with -----BEGIN CERTIFICATE-----"
        )));
    }
    Ok(chain)
}

fn key_of(pem: &[u8], whence: &str) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
        invalid(if has(b"ENCRYPTED") {
            format!("the key in {whence} is encrypted; decrypt it with: openssl pkey -in FILE -out FILE")
        } else if has(b"BEGIN CERTIFICATE") {
            format!(
                "{whence} holds a certificate and no key; give the key, which begins with -----BEGIN PRIVATE KEY-----"
            )
        } else {
            format!(
                "{whence} holds no private key ({error:?}); \
                 give one in PEM form, which begins with -----BEGIN PRIVATE KEY-----"
            )
        })
    })
}

/// Believes every certificate. See [`ClientTls::insecure`].
#[derive(Debug)]
struct Everybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}
