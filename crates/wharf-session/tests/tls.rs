//! Sessions over TLS, against our own other end, against a blocking client or server of rustls's, and against peers
//! that speak no TLS or break it. All certificates are made when a test runs.

mod common;

use common::{DEADLINE, dead_address, eventually, pattern, small_buffers};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use wharf::Buffer;
use wharf_session::rustls::{self, ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use wharf_session::{
    ClientTls, Closed, Framed, FramedLink, FramedSession, Group, LengthPrefix, Lines, Link, Rate, Reconnect,
    SendErrorReason, ServerTls, Service, ServiceOptions, Session, SlowConsumer, TlsErrorKind,
};

// --- Certificates ---

/// An authority, and what it has signed for `localhost` and 127.0.0.1.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    chain: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (chain, key) = sign(&issuer, |_| {});
        Authority { issuer, chain, key }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn server(&self) -> ServerTls {
        ServerTls::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// A server with a certificate that is not as it should be.
    fn odd_server(&self, change: impl FnOnce(&mut CertificateParams)) -> ServerTls {
        let (chain, key) = sign(&self.issuer, change);
        ServerTls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::from_ca_pem(self.pem().as_bytes()).unwrap()
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

/// Signs a certificate for `localhost` and 127.0.0.1; returns it and its key in PEM form.
fn sign(issuer: &CertifiedIssuer<'static, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

fn authority() -> &'static Authority {
    static MADE: OnceLock<Authority> = OnceLock::new();
    MADE.get_or_init(|| Authority::new("wharf tests"))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

static TLS12: &rustls::SupportedProtocolVersion = &rustls::version::TLS12;
static TLS13: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;

fn client_config(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    builder.with_root_certificates(authority().roots()).with_no_client_auth()
}

// --- Sessions that tell ---

/// What a session tells the test, in order.
#[derive(Debug)]
enum News {
    Opened(Link),
    Data(Vec<u8>),
    /// In words, and what kind of TLS failure it was.
    Closed(String, Option<TlsErrorKind>),
}

struct Teller {
    news: Sender<News>,
    echo: bool,
}

impl Session for Teller {
    fn opened(&mut self, link: &Link) {
        let _ = self.news.send(News::Opened(link.clone()));
    }

    fn received(&mut self, link: &Link, data: Buffer) {
        assert!(!data.is_empty());
        if self.echo {
            let _ = link.send(data);
        } else {
            let _ = self.news.send(News::Data(data.to_vec()));
        }
    }

    fn closed(&mut self, _link: &Link, reason: &Closed) {
        let kind = if let Closed::Tls(error) = reason { Some(error.kind()) } else { None };
        let text = if kind.is_some() { reason.to_string() } else { format!("{reason:?}") };
        let _ = self.news.send(News::Closed(text, kind));
    }
}

fn teller() -> (Teller, Receiver<News>) {
    let (news, told) = channel();
    (Teller { news, echo: false }, told)
}

#[track_caller]
fn next(told: &Receiver<News>) -> News {
    told.recv_timeout(DEADLINE).expect("something was to be told in time")
}

#[track_caller]
fn opened(told: &Receiver<News>) -> Link {
    match next(told) {
        News::Opened(link) => link,
        other => panic!("it was to be opened, but: {other:?}"),
    }
}

/// Data until there are so many bytes.
#[track_caller]
fn data(told: &Receiver<News>, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        match next(told) {
            News::Data(data) => all.extend(data),
            other => panic!("after {} of {bytes} bytes: {other:?}", all.len()),
        }
    }
    assert_eq!(all.len(), bytes, "more has come than was sent");
    all
}

/// How it ended; what came before is passed over.
#[track_caller]
fn closed(told: &Receiver<News>) -> (String, Option<TlsErrorKind>) {
    loop {
        if let News::Closed(text, kind) = next(told) {
            return (text, kind);
        }
    }
}

#[track_caller]
fn failed(told: &Receiver<News>, kind: TlsErrorKind, words: &[&str]) {
    match next(told) {
        News::Closed(text, Some(was)) if was == kind => {
            for word in words {
                assert!(text.contains(word), "{word:?} is not in {text:?}");
            }
        }
        other => panic!("{kind:?} was expected, and came: {other:?}"),
    }
}

fn service(builder: ServiceOptions) -> Service {
    builder.start().unwrap()
}

/// A server whose sessions all tell the same receiver.
fn server(builder: ServiceOptions, tls: ServerTls, echo: bool) -> (Service, SocketAddr, Receiver<News>) {
    let service = service(builder);
    let (news, told) = channel();
    let make = move |_| Teller { news: news.clone(), echo };
    let address = service.listen_tls("127.0.0.1:0", tls, make).unwrap();
    (service, address, told)
}

fn echo_server() -> (Service, SocketAddr, Receiver<News>) {
    server(Service::options(), authority().server(), true)
}

// --- Blocking peers ---

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    limited(&socket);
    socket
}

fn limited(socket: &TcpStream) {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
}

type Blocking<T = TcpStream> = StreamOwned<ClientConnection, T>;

fn blocking_with<T: Read + Write>(socket: T, config: ClientConfig) -> Blocking<T> {
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

fn blocking(address: SocketAddr) -> Blocking {
    blocking_with(socket(address), client_config(TLS13))
}

fn round_trip(stream: &mut (impl Read + Write), message: &[u8]) {
    stream.write_all(message).unwrap();
    stream.flush().unwrap();
    let mut read = vec![0; message.len()];
    stream.read_exact(&mut read).unwrap();
    assert!(read == message);
}

// --- What works ---

#[test]
fn many_sessions_are_echoed_with_small_and_large_messages() {
    const SESSIONS: usize = 40;
    const LARGE: usize = 3 * 1024 * 1024 + 17;
    let roomy = || Service::options().outbox(8 * LARGE, SlowConsumer::Disconnect);
    let (server, address, _news) = server(roomy(), authority().server(), true);
    let clients = service(roomy());
    let tls = authority().client();
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let (session, told) = teller();
            let link = clients.connect_tls(address, "localhost", &tls, session).unwrap();
            // Before the handshake is done: it waits.
            link.send(format!("hello from {number}")).unwrap();
            (number, link, told)
        })
        .collect();
    for (number, link, told) in &sessions {
        opened(told);
        let hello = format!("hello from {number}");
        assert_eq!(data(told, hello.len()), hello.as_bytes());
        for bytes in [1, 100, 16 * 1024, 16 * 1024 + 1, 100_000] {
            let message = pattern(bytes, *number as u64);
            link.send(message.clone()).unwrap();
            assert!(data(told, bytes) == message);
        }
    }
    for (number, link, told) in &sessions[..3] {
        let message = pattern(LARGE, *number as u64);
        link.send(message.clone()).unwrap();
        assert!(data(told, LARGE) == message);
    }
    sessions.iter().for_each(|(_, link, _)| link.close());
    for (_, _, told) in &sessions {
        assert_eq!(closed(told).0, "ByUs");
    }
    let report = server.shutdown(DEADLINE);
    assert_eq!((report.aborted, report.workers_left), (0, 0));
}

#[test]
fn what_is_coalesced_for_members_goes_out_in_few_records_in_order() {
    const LINES: usize = 3000;
    struct Member(Group, Sender<Link>);
    impl FramedSession for Member {
        type Codec = Lines;
        fn opened(&mut self, link: &FramedLink<Lines>) {
            self.0.join(link);
            self.1.send(link.link().clone()).unwrap();
        }
        fn frame(&mut self, _link: &FramedLink<Lines>, line: &[u8]) {
            self.0.broadcast(&[line, b"\n"].concat());
        }
    }
    let service = service(Service::options().outbox(1 << 20, SlowConsumer::Wait));
    let (room, (links, told)) = (Group::new(), channel());
    let make = move |_| Framed::new(Lines::new(1024), Member(room.clone(), links.clone()));
    let address = service.listen_tls("127.0.0.1:0", authority().server(), make).unwrap();
    let mut members: Vec<(Blocking, Link)> =
        (0..3).map(|_| (blocking(address), told.recv_timeout(DEADLINE).unwrap())).collect();
    let text: String = (0..LINES).map(|number| format!("{number} {}\n", "x".repeat(number % 50))).collect();
    members[0].0.write_all(text.as_bytes()).unwrap();
    members[0].0.flush().unwrap();
    for (stream, link) in &mut members {
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).unwrap();
        assert!(heard == text.as_bytes());
        eventually("all is counted", || link.stats().messages_sent == LINES as u64);
        assert!(link.stats().sends < LINES as u64 / 4, "{} sends", link.stats().sends);
    }
}

#[test]
fn a_link_tells_what_was_agreed_on() {
    let tls = authority().server().alpn(&["chat/2", "chat/1"]);
    let (_server, address, told) = server(Service::options(), tls, true);
    let clients = service(Service::options());
    let (session, heard) = teller();
    let tls = authority().client().alpn(&["chat/1"]);
    let link = clients.connect_tls(address, "localhost", &tls, session).unwrap();
    assert!(link.is_tls());
    opened(&heard);
    let (ours, theirs) = (link.tls().unwrap(), opened(&told).tls().unwrap());
    assert_eq!(ours.version, "TLS 1.3");
    assert_eq!(ours.version, theirs.version);
    assert_eq!(ours.cipher_suite, theirs.cipher_suite);
    assert!(ours.cipher_suite.starts_with("TLS13_"), "{}", ours.cipher_suite);
    assert_eq!(ours.alpn.as_deref(), Some(&b"chat/1"[..]));
    assert_eq!(theirs.alpn, ours.alpn);
    assert_eq!((theirs.server_name.as_deref(), ours.server_name.as_deref()), (Some("localhost"), None));
    assert_eq!(ours.peer_certificates.len(), 1);
    assert!(theirs.peer_certificates.is_empty());

    let (session, heard) = teller();
    let tls = authority().client().alpn(&["mail"]);
    clients.connect_tls(address, "localhost", &tls, session).unwrap();
    failed(&heard, TlsErrorKind::Incompatible, &["protocol", "common"]);
    failed(&told, TlsErrorKind::Incompatible, &["the client offers no protocol"]);

    let plain = clients.listen("127.0.0.1:0", |_| teller().0).unwrap();
    let (session, heard) = teller();
    let link = clients.connect(plain, session).unwrap();
    opened(&heard);
    assert!(!link.is_tls() && link.tls().is_none());
}

#[test]
fn a_client_that_shows_a_certificate_is_known_by_it() {
    let (chain, key) = sign(&authority().issuer, |_| {});
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let secret = |pem: &str| PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(authority().roots()), provider());
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![der(&authority().chain)], secret(&authority().key))
        .unwrap();
    let (_server, address, told) = server(Service::options(), ServerTls::from_config(config), true);
    let clients = service(Service::options());
    let (session, heard) = teller();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority().roots())
        .with_client_auth_cert(vec![der(&chain)], secret(&key))
        .unwrap();
    let link = clients.connect_tls(address, "localhost", &ClientTls::from_config(config), session).unwrap();
    opened(&heard);
    assert_eq!(opened(&told).tls().unwrap().peer_certificates, [der(&chain).to_vec()]);
    link.send("hello").unwrap();
    assert_eq!(data(&heard, 5), b"hello");

    // In TLS 1.3 the client hears of the refusal after it believes that the handshake is done.
    let (session, heard) = teller();
    clients.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    failed(&told, TlsErrorKind::BadCertificate, &["the client has shown no certificate"]);
    opened(&heard);
    failed(&heard, TlsErrorKind::Refused, &["demands a certificate"]);
}

#[test]
fn a_handshake_and_messages_that_drip_byte_by_byte_are_understood() {
    /// Each byte by itself.
    struct Drip(TcpStream);
    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut into[..1])
        }
    }
    impl Write for Drip {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.0.write(&from[..from.len().min(1)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_server, address, told) = echo_server();
    for (version, name) in [(TLS12, "TLS 1.2"), (TLS13, "TLS 1.3")] {
        let mut stream = blocking_with(Drip(socket(address)), client_config(version));
        let link = opened(&told);
        assert_eq!(link.tls().unwrap().version, name);
        round_trip(&mut stream, b"drop by drop");
        round_trip(&mut stream, &pattern(2000, 1));
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        assert_eq!(closed(&told), ("ByPeer".into(), None));
    }
}

#[test]
fn a_peer_whose_record_takes_longer_than_the_idle_time_out_is_not_idle() {
    let idle = Duration::from_millis(400);
    let (_server, address, told) = server(Service::options().idle_timeout(idle), authority().server(), true);
    let mut stream = blocking(address);
    opened(&told);
    stream.conn.writer().write_all(b"slowly").unwrap();
    let mut record = Vec::new();
    stream.conn.write_tls(&mut record).unwrap();
    let (mut longest, mut before) = (Duration::ZERO, Instant::now());
    // Twice the time-out and more, in all.
    for bytes in record.chunks(record.len().div_ceil(20)) {
        longest = longest.max(before.elapsed());
        before = Instant::now();
        if stream.sock.write_all(bytes).is_err() {
            break;
        }
        thread::sleep(idle / 8);
    }
    // Unless this machine stood still, and it was idle.
    if longest.max(before.elapsed()) < idle {
        let mut echo = [0; 6];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"slowly");
    }
}

#[test]
fn traffic_keys_can_be_renewed_in_the_middle() {
    let (_server, address, _told) = echo_server();
    let mut stream = blocking_with(socket(address), client_config(TLS13));
    for turn in 0..20 {
        stream.conn.refresh_traffic_keys().unwrap();
        round_trip(&mut stream, &pattern(5000, turn));
    }
}

#[test]
fn a_broadcast_reaches_sessions_with_and_without_tls() {
    struct Member(Group);
    impl Session for Member {
        fn opened(&mut self, link: &Link) {
            self.0.join(link);
        }
        fn received(&mut self, _link: &Link, data: Buffer) {
            self.0.broadcast(&data);
        }
    }
    let room = Group::new();
    let service = service(Service::options());
    let (secure, open) = (room.clone(), room.clone());
    let encrypted = service.listen_tls("127.0.0.1:0", authority().server(), move |_| Member(secure.clone())).unwrap();
    let plain = service.listen("127.0.0.1:0", move |_| Member(open.clone())).unwrap();
    let mut ann = blocking(encrypted);
    let mut bob = socket(plain);
    eventually("both are in the room", || room.len() == 2);
    round_trip(&mut ann, b"from Ann\n");
    let mut heard = [0; 9];
    bob.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from Ann\n");
    round_trip(&mut bob, b"from Bob\n");
    ann.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from Bob\n");
}

#[test]
fn frames_work_over_tls_as_without() {
    struct Upper;
    impl FramedSession for Upper {
        type Codec = LengthPrefix;
        fn frame(&mut self, link: &FramedLink<LengthPrefix>, frame: &[u8]) {
            link.send(&frame.to_ascii_uppercase()).unwrap();
        }
    }
    struct Ask(Sender<Vec<u8>>);
    impl FramedSession for Ask {
        type Codec = LengthPrefix;
        fn opened(&mut self, link: &FramedLink<LengthPrefix>) {
            link.send(b"hello").unwrap();
            link.send(&[b'x'; 300_000]).unwrap();
        }
        fn frame(&mut self, _link: &FramedLink<LengthPrefix>, frame: &[u8]) {
            self.0.send(frame.to_vec()).unwrap();
        }
    }
    let codec = LengthPrefix::new(4, 1 << 20);
    let service = service(Service::options());
    let address = service.listen_tls("127.0.0.1:0", authority().server(), move |_| Framed::new(codec, Upper)).unwrap();
    let (frames, told) = channel();
    let ask = Framed::new(codec, Ask(frames));
    service.connect_tls(address, "127.0.0.1", &authority().client(), ask).unwrap();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), b"HELLO");
    assert!(told.recv_timeout(DEADLINE).unwrap() == [b'X'; 300_000]);
}

#[test]
fn messages_of_many_threads_go_out_whole_while_others_come() {
    const THREADS: usize = 4;
    const MESSAGES: usize = 400;
    let (_server, address, told) =
        server(Service::options().outbox(1 << 18, SlowConsumer::Wait), authority().server(), false);
    let mut stream = blocking_with(socket(address), client_config(TLS13));
    let link = opened(&told);
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let link = link.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let message = format!("{thread} {number} {}\n", "x".repeat(number * 7 % 1000));
                    link.send(message).unwrap();
                }
            })
        })
        .collect();
    // Meanwhile the other direction is busy too, and keys change.
    let mut sent = Vec::new();
    let mut heard = Vec::new();
    let mut next_of = [0; THREADS];
    while next_of.iter().sum::<usize>() < THREADS * MESSAGES {
        if sent.len() < 2_000_000 {
            let piece = pattern(3000, sent.len() as u64);
            if sent.len() % 7 == 0 {
                stream.conn.refresh_traffic_keys().unwrap();
            }
            stream.write_all(&piece).unwrap();
            sent.extend(piece);
        }
        let mut piece = [0; 5000];
        let bytes = stream.read(&mut piece).unwrap();
        heard.extend_from_slice(&piece[..bytes]);
        while let Some(end) = heard.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            let mut words = line.split(' ');
            let thread: usize = words.next().unwrap().parse().unwrap();
            let number: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(next_of[thread], number, "a message was overtaken");
            assert_eq!(words.next().unwrap().trim_end().len(), number * 7 % 1000);
            next_of[thread] += 1;
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(data(&told, sent.len()) == sent);
}

// --- Ends ---

#[test]
fn closing_and_finishing_say_so_in_tls_after_what_was_accepted() {
    let (_server, address, told) = server(Service::options(), authority().server(), false);
    let large = pattern(500_000, 5);
    for finish in [true, false] {
        let mut stream = blocking(address);
        let link = opened(&told);
        link.send(large.clone()).unwrap();
        if finish {
            link.finish();
        } else {
            link.close();
        }
        assert_eq!(link.send("late").unwrap_err().reason, SendErrorReason::Closed);
        let mut heard = Vec::new();
        // Without the end of TLS this is an error.
        stream.read_to_end(&mut heard).unwrap();
        assert!(heard == large);
        if finish {
            // The other direction goes on.
            stream.write_all(b"still here").unwrap();
            assert_eq!(data(&told, 10), b"still here");
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        drop(stream);
        assert_eq!(closed(&told), (if finish { "ByPeer" } else { "ByUs" }.into(), None));
    }
}

#[test]
fn a_peer_that_has_finished_still_hears_the_answer_and_its_end() {
    let (server, address, told) = server(Service::options(), authority().server(), false);
    let mut stream = blocking(address);
    let link = opened(&told);
    // More than the connection's buffers take: it waits while the end comes.
    let answer = pattern(900_000, 3);
    small_buffers([&stream.sock, &stream.sock]);
    link.send(answer.clone()).unwrap();
    stream.conn.send_close_notify();
    stream.conn.write_tls(&mut stream.sock).unwrap();
    assert_eq!(closed(&told), ("ByPeer".into(), None));
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(heard == answer);
    assert_eq!(server.shutdown(DEADLINE).aborted, 0);
}

#[test]
fn a_stream_that_ends_without_the_end_of_tls_is_told() {
    let (_server, address, told) = server(Service::options(), authority().server(), false);
    let mut stream = blocking(address);
    let link = opened(&told);
    stream.write_all(b"and the rest foll").unwrap();
    assert_eq!(data(&told, 17), b"and the rest foll");
    stream.sock.shutdown(Shutdown::Write).unwrap();
    failed(&told, TlsErrorKind::Truncated, &["the client", "close_notify", "cut short"]);
    assert!(!link.is_open());
    // It is told in TLS that this side ends, too.
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);

    // Our own end as the client, within a message.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (session, heard) = teller();
    let clients = service(Service::options());
    let tls = authority().client();
    clients.connect_tls(listener.local_addr().unwrap(), "localhost", &tls, session).unwrap();
    let mut stream = blocking_server(&listener);
    opened(&heard);
    stream.conn.writer().write_all(b"half of it").unwrap();
    let mut sealed = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut sealed).unwrap();
    }
    stream.sock.write_all(&sealed[..sealed.len() - 5]).unwrap();
    drop(stream);
    failed(&heard, TlsErrorKind::Truncated, &["the server"]);
}

fn blocking_server(listener: &TcpListener) -> StreamOwned<ServerConnection, TcpStream> {
    use rustls::pki_types::pem::PemObject;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![rustls::pki_types::CertificateDer::from_pem_slice(authority().chain.as_bytes()).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_slice(authority().key.as_bytes()).unwrap(),
        )
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    limited(&socket);
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    // The tickets that follow the handshake.
    stream.flush().unwrap();
    stream
}

#[test]
fn shutdown_ends_tls_sessions_in_tls() {
    let (server, address, told) = server(Service::options(), authority().server(), false);
    let mut streams: Vec<_> = (0..5).map(|_| blocking(address)).collect();
    for _ in &streams {
        opened(&told).send("the last words").unwrap();
    }
    // And one in the middle of its handshake, of which nothing is left to say.
    let _silent = socket(address);
    eventually("it is a session", || server.stats().sessions == 6);
    let ending = thread::spawn(move || server.shutdown(DEADLINE));
    for stream in &mut streams {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"the last words");
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }
    drop(streams);
    let report = ending.join().unwrap();
    assert_eq!((report.graceful, report.aborted, report.workers_left), (6, 0, 0));
}

#[test]
fn a_session_closed_before_its_handshake_is_done_still_sends_what_it_accepted() {
    let (_server, address, told) = server(Service::options(), authority().server(), false);
    let clients = service(Service::options());
    let (session, heard) = teller();
    let link = clients.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    // Perhaps still connecting, perhaps in the handshake.
    link.send("in haste").unwrap();
    link.close();
    opened(&told);
    assert_eq!(data(&told, 8), b"in haste");
    assert_eq!(closed(&told), ("ByPeer".into(), None));
    assert_eq!(closed(&heard).0, "ByUs");
}

#[test]
fn aborting_sends_no_end_of_tls() {
    let (_server, address, told) = server(Service::options(), authority().server(), false);
    let mut stream = blocking(address);
    opened(&told).abort();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(closed(&told).0, "ByUs");
}

// --- Peers that do not read ---

#[test]
fn a_peer_that_does_not_read_ends_at_the_limit_of_its_outbox() {
    const LIMIT: usize = 256 * 1024;
    let (_server, address, told) =
        server(Service::options().outbox(LIMIT, SlowConsumer::Disconnect), authority().server(), false);
    let stream = blocking(address);
    let link = opened(&told);
    let mut accepted = 0;
    let error = loop {
        assert!(link.stats().queued_bytes <= LIMIT);
        match link.send(pattern(10_000, 1)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 10_000, "100 MB were accepted for a peer that does not read");
    };
    assert_eq!(error.reason, SendErrorReason::SlowConsumer);
    assert_eq!(closed(&told).0, "SlowConsumer");
    drop(stream);
}

#[test]
fn a_sender_waits_for_a_slow_reader_and_nothing_is_lost() {
    const LIMIT: usize = 128 * 1024;
    const BYTES: usize = 4_000_000;
    let (_server, address, told) =
        server(Service::options().outbox(LIMIT, SlowConsumer::Wait), authority().server(), false);
    let mut stream = blocking(address);
    small_buffers([&stream.sock, &stream.sock]);
    let link = opened(&told);
    let sender = thread::spawn(move || {
        let all = pattern(BYTES, 9);
        for piece in all.chunks(7777) {
            link.send(piece.to_vec()).unwrap();
            assert!(link.stats().queued_bytes <= LIMIT);
        }
        link.close();
        all
    });
    let mut heard = Vec::new();
    let mut piece = [0; 3000];
    loop {
        let bytes = stream.read(&mut piece).unwrap();
        if bytes == 0 {
            break;
        }
        heard.extend_from_slice(&piece[..bytes]);
        if heard.len() % 50 == 0 {
            thread::yield_now();
        }
    }
    assert!(heard == sender.join().unwrap());
}

#[test]
fn what_is_dropped_for_a_slow_reader_leaves_whole_messages() {
    const MESSAGE: usize = 1000;
    let (_server, address, told) =
        server(Service::options().outbox(64 * 1024, SlowConsumer::DropOldest), authority().server(), false);
    let mut stream = blocking(address);
    let link = opened(&told);
    let mut number = 0u32;
    while link.stats().dropped < 500 {
        let mut message = vec![0; MESSAGE];
        message[..4].copy_from_slice(&number.to_be_bytes());
        link.send(message).unwrap();
        number += 1;
        assert!(number < 100_000, "100 MB went to a peer that does not read");
    }
    let dropped = link.stats().dropped;
    link.close();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len() % MESSAGE, 0);
    let numbers: Vec<u32> =
        heard.chunks(MESSAGE).map(|piece| u32::from_be_bytes(piece[..4].try_into().unwrap())).collect();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.len() as u64 + dropped, u64::from(number));
}

#[test]
fn a_flood_is_echoed_at_the_pace_of_its_reader() {
    // The echo's outbox fills, receiving pauses, and goes on when the client reads: both directions share one TLS.
    let (_server, address, _told) =
        server(Service::options().outbox(128 * 1024, SlowConsumer::Disconnect), authority().server(), true);
    let (session, told) = teller();
    let clients = service(Service::options().outbox(16 << 20, SlowConsumer::Disconnect));
    let link = clients.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    opened(&told);
    let all = pattern(6_000_000, 4);
    all.chunks(50_000).for_each(|piece| link.send(piece.to_vec()).unwrap());
    assert!(data(&told, all.len()) == all);
}

// --- With the other limits of a session ---

/// Data and the end of TLS in one write, so that they arrive together.
fn say_and_end(stream: &mut Blocking, data: &[u8]) {
    stream.conn.writer().write_all(data).unwrap();
    stream.conn.send_close_notify();
    let mut sealed = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut sealed).unwrap();
    }
    stream.sock.write_all(&sealed).unwrap();
}

#[test]
fn what_comes_to_a_paused_session_comes_before_the_end_that_came_with_it() {
    struct Pausing(Teller);
    impl Session for Pausing {
        fn opened(&mut self, link: &Link) {
            link.pause();
            self.0.opened(link);
        }
        fn received(&mut self, link: &Link, data: Buffer) {
            self.0.received(link, data);
        }
        fn closed(&mut self, link: &Link, reason: &Closed) {
            self.0.closed(link, reason);
        }
    }
    let (news, told) = channel();
    let service = service(Service::options());
    let make = move |_| Pausing(Teller { news: news.clone(), echo: false });
    let address = service.listen_tls("127.0.0.1:0", authority().server(), make).unwrap();
    // With the last words of the handshake, which the session gets before it can pause, and after it.
    for at_once in [true, false] {
        let connection =
            ClientConnection::new(Arc::new(client_config(TLS13)), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, socket(address));
        let link = if at_once {
            while stream.conn.is_handshaking() {
                if stream.conn.wants_read() && !stream.conn.wants_write() {
                    stream.conn.read_tls(&mut stream.sock).unwrap();
                    stream.conn.process_new_packets().unwrap();
                } else {
                    stream.conn.write_tls(&mut stream.sock).unwrap();
                }
            }
            say_and_end(&mut stream, b"goodbye");
            opened(&told)
        } else {
            stream.conn.complete_io(&mut stream.sock).unwrap();
            let link = opened(&told);
            say_and_end(&mut stream, b"goodbye");
            link
        };
        let answer = link.send("are you there?");
        assert!(answer.is_ok());
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it is paused");
        link.resume();
        assert_eq!(data(&told, 7), b"goodbye");
        assert_eq!(closed(&told), ("ByPeer".into(), None));
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"are you there?");
    }
}

#[test]
fn frames_at_a_rate_all_come_before_the_end_of_tls() {
    struct Count(Sender<News>, Vec<u8>);
    impl FramedSession for Count {
        type Codec = LengthPrefix;
        fn frame(&mut self, _link: &FramedLink<LengthPrefix>, frame: &[u8]) {
            self.1.extend_from_slice(frame);
        }
        fn closed(&mut self, _link: &FramedLink<LengthPrefix>, reason: &Closed) {
            let _ = self.0.send(News::Data(std::mem::take(&mut self.1)));
            let _ = self.0.send(News::Closed(format!("{reason:?}"), None));
        }
    }
    let (news, told) = channel();
    let service = service(Service::options().rate_limit(Rate::messages(200, 5)));
    let make = move |_| Framed::new(LengthPrefix::new(1, 10), Count(news.clone(), Vec::new()));
    let address = service.listen_tls("127.0.0.1:0", authority().server(), make).unwrap();
    let mut stream = blocking(address);
    let frames: Vec<u8> = (0..60).flat_map(|number| [1, number]).collect();
    say_and_end(&mut stream, &frames);
    assert_eq!(data(&told, 60), (0..60).collect::<Vec<u8>>());
    assert_eq!(closed(&told).0, "ByPeer");
}

#[test]
fn memory_comes_back_when_tls_sessions_end() {
    let builder = Service::options().outbox(1 << 20, SlowConsumer::Disconnect).memory_limit(1 << 20);
    let (server, address, told) = server(builder, authority().server(), false);
    let streams: Vec<_> = (0..4).map(|_| blocking(address)).collect();
    let links: Vec<Link> = streams.iter().map(|_| opened(&told)).collect();
    // More than all of them may have: those who hold most are ended, and the rest goes on.
    for _ in 0..2000 {
        for link in &links {
            let _ = link.send(pattern(4000, 2));
        }
        assert!(server.stats().memory.used_bytes <= 1 << 20);
    }
    assert!(links.iter().any(|link| !link.is_open()), "32 MB were accepted within a limit of 1 MiB");
    drop(streams);
    eventually("all have ended", || server.stats().sessions == 0);
    eventually("nothing is kept", || server.stats().memory.used_bytes == 0);
}

#[test]
fn messages_are_counted_as_they_were_sent_and_bytes_as_they_went_out() {
    let (_server, address, told) = server(Service::options(), authority().server(), false);
    let clients = service(Service::options());
    let (session, heard) = teller();
    let link = clients.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    // They wait for the handshake, and then share records.
    (0..100).for_each(|_| link.send("0123456789").unwrap());
    opened(&heard);
    let theirs = opened(&told);
    assert_eq!(data(&told, 1000), b"0123456789".repeat(100));
    eventually("all are counted", || link.stats().messages_sent == 100);
    // With the handshake.
    assert!((1200..10_000).contains(&link.stats().bytes_sent), "{}", link.stats().bytes_sent);
    assert_eq!(theirs.stats().bytes_received, link.stats().bytes_sent);
    assert_eq!(clients.stats().bytes_sent, link.stats().bytes_sent);
}

#[test]
fn what_waits_for_a_handshake_counts_against_the_outbox() {
    const LIMIT: usize = 100_000;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients = service(Service::options().outbox(LIMIT, SlowConsumer::Disconnect));
    let (session, heard) = teller();
    let address = silent.local_addr().unwrap();
    let link = clients.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    let (mut socket, _) = silent.accept().unwrap();
    limited(&socket);
    // Its first words: from now on it is in the handshake.
    socket.read_exact(&mut [0; 5]).unwrap();
    for number in 1..=10 {
        link.send(pattern(LIMIT / 10, number)).unwrap();
        assert_eq!(link.stats().queued_bytes, number as usize * LIMIT / 10);
    }
    assert_eq!(link.send("one more").unwrap_err().reason, SendErrorReason::SlowConsumer);
    assert_eq!(closed(&heard).0, "SlowConsumer");
    // And nothing of it was sent.
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(rest.len() < 1000, "{} bytes came before the handshake", rest.len());
}

#[test]
fn a_client_connects_again_over_tls_when_its_server_is_back_or_has_a_new_certificate() {
    let strange = Authority::new("somebody else");
    let (first, address, told) = server(Service::options(), strange.server(), true);
    let clients = service(Service::options());
    let (news, heard) = channel();
    let options = Reconnect::new().initial_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(20));
    let make = move || Teller { news: news.clone(), echo: false };
    let client = clients.reconnect_tls(address, "localhost", &authority().client(), options, make).unwrap();
    failed(&heard, TlsErrorKind::UnknownIssuer, &[]);
    failed(&told, TlsErrorKind::Refused, &[]);
    assert!(client.link().is_none());
    drop(first);
    let second = service(Service::options());
    let (news, told) = channel();
    let make = move |_| Teller { news: news.clone(), echo: true };
    second.listen_tls(address, authority().server(), make).unwrap();
    let link = loop {
        match next(&heard) {
            News::Opened(link) => break link,
            News::Closed(..) => {}
            News::Data(data) => panic!("{data:?}"),
        }
    };
    link.send("here again").unwrap();
    assert_eq!(data(&heard, 10), b"here again");
    opened(&told);
    client.close();
    assert_eq!(closed(&told).0, "ByPeer");
    assert_eq!(client.wait().to_string(), "stopped");
    let error = clients.reconnect_tls(address, "", &authority().client(), Reconnect::new(), || teller().0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

// --- Failures ---

#[test]
fn a_client_that_speaks_plain_text_is_told_apart_and_harms_nobody() {
    let (server, address, told) = echo_server();
    for text in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "hi", "\n"] {
        let mut socket = socket(address);
        socket.write_all(text.as_bytes()).unwrap();
        // An alert, perhaps, and then the end.
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        drop(socket);
        failed(&told, TlsErrorKind::NotTls, &["the client speaks plain text, not TLS", "connect with TLS"]);
    }
    let mut binary = socket(address);
    binary.write_all(&[0, 1, 2, 3]).unwrap();
    failed(&told, TlsErrorKind::NotTls, &["something else than TLS"]);
    let mut stream = blocking(address);
    opened(&told);
    round_trip(&mut stream, b"still served");
    assert_eq!(server.stats().panics, 0);
}

#[test]
fn a_tls_client_at_a_plain_server_hears_that_it_is_one() {
    struct Greeter;
    impl Session for Greeter {
        fn opened(&mut self, link: &Link) {
            link.send("220 mail.example ready\r\n").unwrap();
        }
        fn received(&mut self, _link: &Link, _data: Buffer) {}
    }
    struct Echo;
    impl Session for Echo {
        fn received(&mut self, link: &Link, data: Buffer) {
            link.send(data).unwrap();
        }
    }
    struct Hang;
    impl Session for Hang {
        fn received(&mut self, link: &Link, _data: Buffer) {
            link.close();
        }
    }
    let service = service(Service::options());
    let greets = service.listen("127.0.0.1:0", |_| Greeter).unwrap();
    let echoes = service.listen("127.0.0.1:0", |_| Echo).unwrap();
    let hangs_up = service.listen("127.0.0.1:0", |_| Hang).unwrap();
    let tls = authority().client();
    for (address, kind, words) in [
        (greets, TlsErrorKind::NotTls, "speaks plain text, not TLS"),
        (echoes, TlsErrorKind::NotTls, "sends back what it is sent"),
        (hangs_up, TlsErrorKind::EndedInHandshake, "may not speak TLS"),
    ] {
        let (session, told) = teller();
        service.connect_tls(address, "localhost", &tls, session).unwrap();
        failed(&told, kind, &["the server", words]);
    }
    let (session, told) = teller();
    service.connect_tls(dead_address(), "localhost", &tls, session).unwrap();
    assert!(closed(&told).0.starts_with("Failed"));
}

#[test]
fn certificates_that_are_not_right_are_told_on_both_sides() {
    let clients = service(Service::options());
    let ours = authority().client();
    let strange = Authority::new("somebody else");
    let past = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let future = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(3000, 1, 1);
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let namesake = Authority::new("wharf tests");
    let cases: [(ServerTls, &str, TlsErrorKind, &[&str]); 7] = [
        (strange.server(), "localhost", TlsErrorKind::UnknownIssuer, &["signed by nobody", "authority"]),
        (namesake.server(), "localhost", TlsErrorKind::UnknownIssuer, &["another key", "authority"]),
        (authority().odd_server(past), "localhost", TlsErrorKind::OutOfDate, &["has expired", "renewed"]),
        (authority().odd_server(future), "localhost", TlsErrorKind::OutOfDate, &["not valid yet", "clock"]),
        (
            authority().server(),
            "example.org",
            TlsErrorKind::WrongName,
            &["is for localhost, 127.0.0.1, not for example.org"],
        ),
        (authority().server(), "127.0.0.2", TlsErrorKind::WrongName, &["not for 127.0.0.2"]),
        (authority().odd_server(nameless), "localhost", TlsErrorKind::WrongName, &["subjectAltName"]),
    ];
    for (tls, name, kind, words) in cases {
        let (_server, address, told) = server(Service::options(), tls.clone(), true);
        let (session, heard) = teller();
        clients.connect_tls(address, name, &ours, session).unwrap();
        failed(&heard, kind, words);
        failed(&told, TlsErrorKind::Refused, &["the client", "certificate"]);
        // Whoever looks away is served.
        let (session, heard) = teller();
        let link = clients.connect_tls(address, name, &ClientTls::insecure().unwrap(), session).unwrap();
        opened(&heard);
        link.send("hello").unwrap();
        assert_eq!(data(&heard, 5), b"hello");
    }
    let error = clients.connect_tls(dead_address(), "not a name", &ours, teller().0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("\"not a name\""), "{error}");
}

#[test]
fn a_server_may_be_trusted_by_its_own_certificate_if_it_is_none_of_an_authority() {
    let clients = service(Service::options());
    for (is_ca, well) in [(IsCa::ExplicitNoCa, true), (IsCa::Ca(BasicConstraints::Unconstrained), false)] {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let (_server, address, _told) = server(Service::options(), tls, true);
        let (session, heard) = teller();
        let trusting = ClientTls::from_ca_pem(certificate.as_bytes()).unwrap();
        clients.connect_tls(address, "localhost", &trusting, session).unwrap();
        if well {
            opened(&heard);
        } else {
            failed(&heard, TlsErrorKind::BadCertificate, &["CA:FALSE"]);
        }
    }
}

#[test]
fn bytes_that_were_changed_on_their_way_end_the_session() {
    let (_server, address, told) = echo_server();
    let mut stream = blocking(address);
    opened(&told);
    round_trip(&mut stream, b"all is well");
    stream.conn.writer().write_all(b"not for long").unwrap();
    let mut sealed = Vec::new();
    stream.conn.write_tls(&mut sealed).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    stream.sock.write_all(&sealed).unwrap();
    failed(&told, TlsErrorKind::Broken, &["what the client sent", "changed"]);
    // It hears so.
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[test]
fn a_client_that_does_not_shake_hands_is_closed_in_time() {
    let builder = Service::options().handshake_timeout(Duration::from_millis(50));
    let (server, address, told) = server(builder, authority().server(), true);
    let mut silent = socket(address);
    assert!(matches!(closed(&told).0.as_str(), "HandshakeTimeout"));
    assert!(matches!(silent.read(&mut [0; 10]), Ok(0) | Err(_)));
    // And one that drips: what it sends is no excuse.
    let mut dripping = socket(address);
    let _ = dripping.write_all(&[22, 3, 1]);
    let gone = Arc::new(AtomicBool::new(false));
    let until = gone.clone();
    let dripper = thread::spawn(move || {
        while !until.load(Ordering::Relaxed) && dripping.write_all(&[0]).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let (text, kind) = closed(&told);
    gone.store(true, Ordering::Relaxed);
    dripper.join().unwrap();
    assert!(text == "HandshakeTimeout" || kind == Some(TlsErrorKind::Broken), "{text}");
    eventually("both are gone", || server.stats().sessions == 0);
}

#[test]
fn after_the_handshake_the_session_has_its_time_to_be_ready() {
    struct Ready(Sender<News>);
    impl Session for Ready {
        fn received(&mut self, link: &Link, data: Buffer) {
            link.ready();
            let _ = link.send(data);
        }
        fn closed(&mut self, _link: &Link, reason: &Closed) {
            let _ = self.0.send(News::Closed(format!("{reason:?}"), None));
        }
    }
    let (news, told) = channel();
    let service = service(Service::options().handshake_timeout(Duration::from_millis(300)));
    let address = service.listen_tls("127.0.0.1:0", authority().server(), move |_| Ready(news.clone())).unwrap();
    let mut ready = blocking(address);
    round_trip(&mut ready, b"password");
    let _never = blocking(address);
    assert_eq!(closed(&told).0, "HandshakeTimeout");
    round_trip(&mut ready, b"go on");
}

#[test]
fn a_silent_peer_is_closed_after_the_handshake_by_the_idle_timeout() {
    let (_server, address, told) =
        server(Service::options().idle_timeout(Duration::from_millis(100)), authority().server(), true);
    let mut stream = blocking(address);
    opened(&told);
    assert_eq!(closed(&told).0, "IdleTimeout");
    // Gracefully.
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_panic_in_a_verifier_costs_its_session_only() {
    #[derive(Debug)]
    struct Falls(AtomicUsize);
    impl rustls::server::ResolvesServerCert for Falls {
        fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("on purpose"))
        }
    }
    let falls = Arc::new(Falls(AtomicUsize::new(0)));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(falls.clone());
    let (server, address, told) = server(Service::options(), ServerTls::from_config(config), true);
    let (session, heard) = teller();
    server.connect_tls(address, "localhost", &authority().client(), session).unwrap();
    assert_eq!(closed(&told).0, "Panicked");
    closed(&heard);
    assert_eq!((falls.0.load(Ordering::SeqCst), server.stats().panics), (1, 1));
}

// --- Certificates and keys in files ---

#[test]
fn files_that_cannot_serve_are_told_with_the_remedy() {
    let folder = std::env::temp_dir().join(format!("wharf-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let chain = write("chain.pem", &authority().chain);
    let key = write("key.pem", &authority().key);
    let other_key = write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let empty = write("empty.pem", "nothing\n");
    let damaged = write("damaged.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let locked =
        write("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let nothing = folder.join("missing.pem");
    ServerTls::from_pem_files(&chain, &key).unwrap();
    for (chain, key, words) in [
        (&nothing, &key, ["missing.pem", "cannot be read"]),
        (&chain, &nothing, ["missing.pem", "cannot be read"]),
        (&empty, &key, ["empty.pem holds no certificate", "BEGIN CERTIFICATE"]),
        (&key, &key, ["key.pem holds a key and no certificate", "BEGIN CERTIFICATE"]),
        (&damaged, &key, ["damaged.pem is damaged", "BEGIN CERTIFICATE"]),
        (&chain, &chain, ["chain.pem holds a certificate and no key", "BEGIN PRIVATE KEY"]),
        (&chain, &empty, ["empty.pem holds no private key", "BEGIN PRIVATE KEY"]),
        (&chain, &locked, ["locked.pem is encrypted", "openssl pkey"]),
        (&chain, &other_key, ["do not belong together", "other.pem"]),
    ] {
        let error = ServerTls::from_pem_files(chain, key).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }
    let ca = write("ca.pem", &authority().pem());
    ClientTls::from_ca_file(&ca).unwrap();
    for (file, word) in
        [(&nothing, "cannot be read"), (&key, "holds a key and no certificate"), (&empty, "no certificate")]
    {
        let error = ClientTls::from_ca_file(file).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_systems_authorities_do_not_know_ours() {
    let Ok(tls) = ClientTls::system() else {
        return common::skipped("the system's authorities", "it has none; install ca-certificates");
    };
    let (server, address, _told) = echo_server();
    let (session, heard) = teller();
    server.connect_tls(address, "localhost", &tls, session).unwrap();
    failed(&heard, TlsErrorKind::UnknownIssuer, &[]);
}
