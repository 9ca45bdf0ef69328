//! `wharf serve files`: what clients get, and what faults of clients, files and machines come to.

mod common;

use common::{DEADLINE, Wharf, command};
use rustix::process::{Signal, getuid};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Larger than what sockets buffer, so that a sender has to wait for the reader.
const LARGE: usize = 64 * 1024 * 1024;

/// A directory of its own, with the served one in it.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let top = std::env::temp_dir().join(format!("wharf-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        fs::create_dir_all(top.join("root/sub")).unwrap();
        fs::write(top.join("secret"), "secret beside the directory").unwrap();
        fs::write(top.join("root/a.txt"), "some text\n").unwrap();
        fs::write(top.join("root/index.html"), "<p>index</p>\n").unwrap();
        fs::write(top.join("root/sub/b.bin"), pattern(100_000)).unwrap();
        Tree(top)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes of which no two places look alike.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    let mut content = vec![0; bytes];
    random.fill(&mut content);
    content
}

/// A running server.
struct Server {
    wharf: Wharf,
    address: SocketAddr,
}

impl Server {
    fn serve(directory: &Path, more: &[&str]) -> Server {
        Server::start(directory, more, None).unwrap()
    }

    fn start(directory: &Path, more: &[&str], user: Option<u32>) -> std::io::Result<Server> {
        let mut command = command(&["serve", "files", "--listen", "127.0.0.1:0"]);
        command.args(more).arg(directory);
        if let Some(user) = user {
            command.uid(user);
        }
        let wharf = Wharf::spawn(&mut command)?;
        let address = wharf.address();
        Ok(Server { wharf, address })
    }

    fn client(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Client { socket, ahead: Vec::new() }
    }

    /// One request on a connection of its own.
    #[track_caller]
    fn get(&self, target: &str, fields: &str) -> Answer {
        let mut client = self.client();
        client.ask("GET", target, fields);
        client.answer()
    }

    /// It still serves.
    #[track_caller]
    fn lives(&self) {
        assert_eq!(self.get("/a.txt", "").content, b"some text\n");
    }

    /// Waits for a line on stderr that contains the words.
    #[track_caller]
    fn says(&self, words: &str) -> String {
        self.wharf.complains(words)
    }

    fn signal(&self, signal: Signal) {
        self.wharf.signal(signal);
    }

    /// Ends it, and returns its last line.
    #[track_caller]
    fn end(self) -> String {
        let mut end = self.wharf.end_by(Signal::TERM);
        assert!(end.status.success(), "{:?}", end.errors);
        let last = end.errors.pop().unwrap_or_default();
        assert!(last.contains("ended: "), "{last}");
        last
    }

    #[track_caller]
    fn ends_with(self, requests: usize, connections: usize) {
        let last = self.end();
        let expected = format!("ended: {requests} requests on {connections} connections, ");
        assert!(last.starts_with(&expected), "{last}, and not {expected}");
    }
}

struct Client {
    socket: TcpStream,
    /// Came with the last answer and belongs to the next.
    ahead: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    content: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let line =
            self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{}: ", name.to_lowercase())))?;
        Some(&line[name.len() + 2..])
    }
}

impl Client {
    #[track_caller]
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    fn ask(&mut self, verb: &str, target: &str, fields: &str) {
        self.send(format!("{verb} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    }

    fn more(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let bytes = self.socket.read(&mut piece)?;
        self.ahead.extend_from_slice(&piece[..bytes]);
        Ok(bytes)
    }

    /// The head of the next answer.
    #[track_caller]
    fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap();
            }
            let came = String::from_utf8_lossy(&self.ahead).into_owned();
            assert!(self.more().unwrap() > 0, "an end instead of an answer, after {came:?}");
        }
    }

    #[track_caller]
    fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    #[track_caller]
    fn answer_to(&mut self, is_head: bool) -> Answer {
        let head = self.head();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, content: Vec::new() };
        if is_head || status == 304 {
            return answer;
        }
        let length: usize = answer.field("Content-Length").unwrap().parse().unwrap();
        while self.ahead.len() < length {
            assert!(self.more().unwrap() > 0, "{} of {length} bytes came", self.ahead.len());
        }
        let rest = self.ahead.split_off(length);
        answer.content = std::mem::replace(&mut self.ahead, rest);
        answer
    }

    /// The server has closed it, without a further byte and without a reset.
    #[track_caller]
    fn is_closed(&mut self) {
        let ahead = String::from_utf8_lossy(&self.ahead).into_owned();
        assert_eq!(ahead, "", "nothing more was to come");
        let bytes = self.more().unwrap();
        assert_eq!(bytes, 0, "{:?}", String::from_utf8_lossy(&self.ahead));
    }
}

/// Says loudly that something was not tested, and why.
fn skipped(what: &str, why: &str) {
    // Not by `eprintln`, whose output a passed test swallows.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

// --- What is served ---

#[test]
fn files_come_whole_with_what_there_is_to_know_of_them() {
    let tree = Tree::new("whole");
    let wharf = Server::serve(&tree.root(), &[]);
    let answer = wharf.get("/a.txt", "");
    assert_eq!((answer.status, &answer.content[..]), (200, &b"some text\n"[..]));
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(answer.field("Connection"), None);
    for name in ["Date", "Last-Modified", "ETag"] {
        assert!(answer.field(name).is_some(), "{name}: {}", answer.head);
    }
    // Around every size at which something is done in another way.
    for bytes in [0, 1, 4096, 16383, 16384, 16385, 65536, 1 << 20, (1 << 20) + 1, 5_000_000] {
        tree.write("sized.bin", pattern(bytes));
        let answer = wharf.get("/sized.bin", "");
        assert!(answer.content == pattern(bytes), "{} of {bytes} bytes, or others", answer.content.len());
    }
    let mut client = wharf.client();
    client.ask("HEAD", "/sub/b.bin", "");
    let head = client.answer_to(true);
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("100000")));
    client.ask("GET", "/sub/b.bin?query", "");
    assert!(client.answer().content == pattern(100_000));
    wharf.ends_with(13, 12);
}

#[test]
fn ranges_and_conditions_hold_on_the_wire() {
    let tree = Tree::new("ranges");
    let wharf = Server::serve(&tree.root(), &[]);
    let whole = pattern(100_000);
    for (range, part, said) in [
        ("bytes=0-0", 0..1, "bytes 0-0/100000"),
        ("bytes=50000-", 50_000..100_000, "bytes 50000-99999/100000"),
        ("bytes=-3", 99_997..100_000, "bytes 99997-99999/100000"),
        ("bytes=1000-70000", 1000..70_001, "bytes 1000-70000/100000"),
    ] {
        let answer = wharf.get("/sub/b.bin", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.field("Content-Range")), (206, Some(said)), "{range}");
        assert!(answer.content == whole[part], "{range}");
    }
    let behind = wharf.get("/sub/b.bin", "Range: bytes=100000-\r\n");
    assert_eq!((behind.status, behind.field("Content-Range")), (416, Some("bytes */100000")));
    let several = wharf.get("/sub/b.bin", "Range: bytes=0-1, 5-6\r\n");
    assert_eq!((several.status, several.content.len()), (200, 100_000));

    // Old enough for a strong tag.
    let old = fs::File::options().write(true).open(tree.root().join("a.txt")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let first = wharf.get("/a.txt", "");
    let (tag, date) = (first.field("ETag").unwrap(), first.field("Last-Modified").unwrap());
    assert!(tag.starts_with('"'), "{tag}");
    for (fields, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"another\"\r\n".to_owned(), 200),
        ("If-Match: \"another\"\r\n".to_owned(), 412),
    ] {
        assert_eq!(wharf.get("/a.txt", &fields).status, status, "{fields}");
    }
    // Behind a 304, which has no content, the connection goes on.
    let mut client = wharf.client();
    client.ask("GET", "/a.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!(client.answer().status, 304);
    client.ask("GET", "/a.txt", "");
    assert_eq!(client.answer().content, b"some text\n");
}

#[test]
fn connections_end_when_the_client_wants_it() {
    let tree = Tree::new("ends");
    let wharf = Server::serve(&tree.root(), &[]);
    for (text, field) in [
        ("GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some("close")),
        ("GET /a.txt HTTP/1.0\r\n\r\n", Some("close")),
        ("GET /sub/b.bin HTTP/1.0\r\n\r\n", Some("close")),
    ] {
        let mut client = wharf.client();
        client.send(text);
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("Connection")), (200, field), "{text:?}");
        client.is_closed();
    }
    let mut old = wharf.client();
    for _ in 0..2 {
        old.send("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = old.answer();
        assert_eq!((answer.status, answer.field("Connection")), (200, Some("keep-alive")));
    }
    // Who says that nothing more comes gets what was asked for before.
    let mut half = wharf.client();
    half.ask("GET", "/sub/b.bin", "");
    half.socket.shutdown(Shutdown::Write).unwrap();
    assert!(half.answer().content == pattern(100_000));
    half.is_closed();
}

#[test]
fn thousands_of_requests_at_once_are_answered_in_their_order() {
    const REQUESTS: usize = 20_000;
    let tree = Tree::new("pipeline");
    tree.write("c.bin", pattern(20_000));
    let wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    let mut sender = client.socket.try_clone().unwrap();
    // Small, missing, large, redirected: each goes another way.
    let targets = ["/a.txt", "/none", "/a.txt", "/c.bin", "/sub", "/a.txt"];
    let sending = thread::spawn(move || {
        let mut all = String::new();
        for number in 0..REQUESTS {
            let target = targets[number % targets.len()];
            all.push_str(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        sender.write_all(all.as_bytes()).unwrap();
    });
    let large = pattern(20_000);
    for number in 0..REQUESTS {
        let answer = client.answer();
        match targets[number % targets.len()] {
            "/none" => assert_eq!(answer.status, 404, "{number}"),
            "/sub" => assert_eq!((answer.status, answer.field("Location")), (301, Some("/sub/")), "{number}"),
            "/c.bin" => assert!(answer.content == large, "{number}"),
            _ => assert_eq!(answer.content, b"some text\n", "{number}"),
        }
    }
    sending.join().unwrap();
    wharf.ends_with(REQUESTS, 1);
}

#[test]
fn many_clients_at_once_each_get_their_own_bytes() {
    let tree = Tree::new("many");
    let wharf = Server::serve(&tree.root(), &["--workers", "4"]);
    let sizes = [10, 5_000, 16_384, 16_385, 300_000, 2_000_000];
    for size in sizes {
        tree.write(&format!("{size}.bin"), pattern(size));
    }
    thread::scope(|scope| {
        for number in 0..16_u64 {
            let mut client = wharf.client();
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(number);
                for _ in 0..60 {
                    let size = sizes[random.usize(..sizes.len())];
                    let from = random.usize(..size);
                    client.ask("GET", &format!("/{size}.bin"), &format!("Range: bytes={from}-\r\n"));
                    let answer = client.answer();
                    assert!(answer.content == pattern(size)[from..], "client {number}: {size} from {from}");
                }
            });
        }
    });
    wharf.ends_with(960, 16);
}

#[test]
fn directories_have_an_index_or_a_list_or_neither() {
    let tree = Tree::new("directories");
    tree.write("sub/<b>&\".txt", "x");
    tree.write("sub/.hidden", "x");
    fs::create_dir(tree.root().join("sub/deep")).unwrap();
    let plain = Server::serve(&tree.root(), &[]);
    let index = plain.get("/", "");
    assert_eq!((index.status, &index.content[..]), (200, &b"<p>index</p>\n"[..]));
    assert_eq!(index.field("Content-Type"), Some("text/html; charset=utf-8"));
    let moved = plain.get("/sub?a=b", "");
    assert_eq!((moved.status, moved.field("Location")), (301, Some("/sub/?a=b")));
    assert_eq!(plain.get("/sub/", "").status, 403);
    assert_eq!(plain.get("/none/", "").status, 404);
    assert_eq!(plain.get("/a.txt/", "").status, 404);
    assert_eq!(plain.get("/sub/.hidden", "").status, 404);

    let listing = Server::serve(&tree.root(), &["--list"]);
    let list = listing.get("/sub/", "");
    let page = String::from_utf8(list.content).unwrap();
    assert_eq!((list.status, page.contains(".hidden"), page.contains("<b>")), (200, false, false), "{page}");
    assert!(page.contains("<a href=\"./deep/\">deep/</a>") && page.contains("&lt;b&gt;&amp;&quot;.txt"), "{page}");
    let link = page.split("href=\"./").find(|link| link.contains("txt")).unwrap().split('"').next().unwrap();
    assert_eq!(listing.get(&format!("/sub/{link}"), "").content, b"x", "a link leads to its file: {link}");
    assert_eq!(listing.get("/", "").content, b"<p>index</p>\n");

    let hidden = Server::serve(&tree.root(), &["--list", "--hidden"]);
    assert_eq!(hidden.get("/sub/.hidden", "").content, b"x");
    assert!(String::from_utf8(hidden.get("/sub/", "").content).unwrap().contains(".hidden"));
}

#[test]
fn what_is_not_served_is_said_with_its_reason() {
    let tree = Tree::new("refusals");
    let wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    for (verb, status, allow) in
        [("POST", 405, Some("GET, HEAD")), ("OPTIONS", 405, Some("GET, HEAD")), ("BREW", 501, None)]
    {
        client.ask(verb, "/a.txt", "");
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("Allow")), (status, allow), "{verb}");
    }
    // These end the connection, with the answer and without a reset.
    for (text, status) in [
        ("GET /a.txt HTTP/1.1\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET /a.txt HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}", 400),
    ] {
        let mut client = wharf.client();
        client.send(text);
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")), "{text:?}");
        assert!(!answer.content.is_empty());
        client.is_closed();
    }
    wharf.lives();
}

#[test]
fn bodies_are_skipped_and_never_taken_for_requests() {
    let tree = Tree::new("bodies");
    let wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    let inner = "GET /none HTTP/1.1\r\nHost: a\r\n\r\n";
    client.ask("GET", "/a.txt", &format!("Content-Length: {}\r\n", inner.len()));
    client.send(inner);
    client.ask("POST", "/a.txt", "Transfer-Encoding: chunked\r\n");
    client.send(format!("{:x}\r\n{inner}\r\n0\r\nTrailer: x\r\n\r\n", inner.len()));
    client.ask("GET", "/sub/b.bin", "Content-Length: 60000\r\n");
    client.send([b'x'; 60000]);
    client.ask("GET", "/index.html", "");
    assert_eq!(client.answer().content, b"some text\n");
    assert_eq!(client.answer().status, 405);
    assert!(client.answer().content == pattern(100_000));
    assert_eq!(client.answer().content, b"<p>index</p>\n");

    // What is no chunk ends the connection, and what is behind it is not looked at.
    let mut client = wharf.client();
    client.ask("GET", "/a.txt", "Transfer-Encoding: chunked\r\n");
    client.send(format!("0x5\r\n{inner}"));
    assert_eq!(client.answer().status, 200);
    client.is_closed();
    // Who asks before sending gets the answer at once.
    let mut client = wharf.client();
    client.ask("GET", "/a.txt", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    assert_eq!((client.answer().status), 200);
    client.is_closed();
}

// --- What must not be served ---

#[test]
fn no_trick_leads_out_of_the_directory() {
    let tree = Tree::new("tricks");
    symlink("../secret", tree.root().join("out")).unwrap();
    symlink(tree.0.join("secret"), tree.root().join("absolute")).unwrap();
    symlink("..", tree.root().join("up")).unwrap();
    symlink("/proc/self", tree.root().join("self")).unwrap();
    symlink("sub/b.bin", tree.root().join("in")).unwrap();
    symlink("sub", tree.root().join("directory")).unwrap();
    let wharf = Server::serve(&tree.root(), &["--hidden", "--list"]);
    for target in [
        "/../secret",
        "/sub/../../secret",
        "/..",
        "/../",
        "/%2e%2e/secret",
        "/%2E%2E/secret",
        "/.%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        "/%252e%252e%252fsecret",
        "/%c0%ae%c0%ae/secret",
        "/%e0%80%ae%e0%80%ae/secret",
        "/%c0%af../secret",
        "/a.txt%00",
        "/%00/../secret",
        "/a.txt%0d%0aX:y",
        "/%",
        "/%2",
        "http://test/../secret",
        "*",
    ] {
        let answer = wharf.get(target, "");
        assert_eq!(answer.status, 400, "{target}");
    }
    for (target, status) in [
        ("/out", 403),
        ("/absolute", 403),
        ("/up/secret", 403),
        ("/up/", 403),
        ("/up/root/a.txt", 403),
        ("/..;/secret", 404),
        ("/.../secret", 404),
        ("//secret", 404),
        ("/C:/secret", 404),
        ("/~root/.ssh/id_rsa", 404),
    ] {
        let answer = wharf.get(target, "");
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    assert_ne!(wharf.get("/self/environ", "").status, 200);
    // Links that stay inside work, where the kernel can tell.
    if wharf.get("/in", "").content == pattern(100_000) {
        assert!(wharf.get("/directory/b.bin", "").content == pattern(100_000));
    } else {
        skipped("links inside the directory", "this kernel has no openat2");
    }
    assert_eq!(wharf.get("//evil.example/..%2f", "").status, 400);
    assert_eq!(wharf.get("//sub", "").field("Location"), Some("/sub/"), "not another host");
    wharf.lives();
}

#[test]
fn only_regular_files_are_served_and_nothing_else_is_waited_for() {
    let tree = Tree::new("special");
    let pipe = tree.root().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(tree.root().join("socket")).unwrap();
    let wharf = Server::serve(&tree.root(), &["--workers", "1"]);
    for name in ["pipe", "socket"] {
        assert_eq!(wharf.get(&format!("/{name}"), "").status, 403, "{name}");
    }
    fs::create_dir(tree.root().join("odd")).unwrap();
    fs::create_dir(tree.root().join("odd/index.html")).unwrap();
    assert_eq!(wharf.get("/odd/", "").status, 403);
    wharf.lives();
}

#[test]
fn what_may_not_be_read_is_refused() {
    let tree = Tree::new("permissions");
    let path = tree.write("private", "x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything, so then the server runs as somebody else, if he may start it.
    let nobody = getuid().is_root().then_some(65534);
    let wharf = match Server::start(&tree.root(), &[], nobody) {
        Ok(wharf) => wharf,
        Err(error) if nobody.is_some() => {
            return skipped("files without permission", &format!("nobody cannot start the program: {error}"));
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(wharf.get("/private", "").status, 403);
    wharf.lives();
    // Of a directory that may not be searched nothing could be served: that is told at once, and not by each answer.
    let closed = tree.0.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    if let Some(user) = nobody {
        command.uid(user);
    }
    let output = command.args(["serve", "files", "--listen", "127.0.0.1:0"]).arg(&closed).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("give a directory that can be read"), "{said}");
}

// --- Files that change ---

#[test]
fn a_file_that_has_gone_is_not_found_and_one_that_came_is() {
    let tree = Tree::new("gone");
    let wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    let path = tree.write("there", "x");
    for _ in 0..3 {
        client.ask("GET", "/there", "");
        assert_eq!(client.answer().content, b"x");
        fs::remove_file(&path).unwrap();
        client.ask("GET", "/there", "");
        assert_eq!(client.answer().status, 404);
        tree.write("there", "x");
    }
    // One that goes while it is sent comes whole: it is open.
    tree.write("large", pattern(LARGE));
    client.ask("GET", "/large", "");
    client.head();
    fs::remove_file(tree.root().join("large")).unwrap();
    while client.ahead.len() < LARGE {
        assert!(client.more().unwrap() > 0);
    }
    assert!(client.ahead == pattern(LARGE));
}

#[test]
fn a_file_that_is_truncated_while_it_is_sent_ends_that_connection_only() {
    let tree = Tree::new("truncated");
    let path = tree.write("large", vec![b'x'; LARGE]);
    let wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    client.ask("GET", "/large", "");
    let head = client.head();
    assert!(head.contains(&format!("Content-Length: {LARGE}\r\n")), "{head}");
    fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let mut bytes = client.ahead.len();
    loop {
        client.ahead.clear();
        match client.more() {
            Ok(0) => break,
            Ok(more) => bytes += more,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break;
            }
        }
    }
    assert!(bytes < LARGE, "what is not there cannot come");
    wharf.says("became shorter");
    wharf.lives();
}

// --- Clients that are slow, rude, or too many ---

#[test]
fn a_request_without_end_is_refused() {
    let tree = Tree::new("endless");
    let wharf = Server::serve(&tree.root(), &[]);
    for (start, piece, status) in [
        ("GET /", "aaaaaaaa", 414),
        ("GET / HTTP/1.1\r\nX: ", "bbbbbbbb", 431),
        ("GET / HTTP/1.1\r\n", "X: y\r\n", 431),
    ] {
        let mut client = wharf.client();
        let mut sender = client.socket.try_clone().unwrap();
        client.send(start);
        let piece = piece.repeat(512);
        let sending = thread::spawn(move || {
            // Until the server has enough of it; or until nobody would.
            let mut sent = 0;
            while sent < LARGE && sender.write_all(piece.as_bytes()).is_ok() {
                sent += piece.len();
            }
            sent
        });
        assert_eq!(client.answer().status, status, "{start:?}");
        let sent = sending.join().unwrap();
        assert!(sent < LARGE, "it took {sent} bytes");
    }
    wharf.lives();
}

#[test]
fn who_drips_a_request_is_told_and_closed() {
    let tree = Tree::new("drip");
    let wharf = Server::serve(&tree.root(), &["--header-timeout", "0.3"]);
    let mut client = wharf.client();
    let mut sender = client.socket.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        let until = Instant::now() + DEADLINE;
        // Each byte would be in time, if bytes were what counts.
        while Instant::now() < until && sender.write_all(b"G").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("Connection")), (408, Some("close")));
    client.is_closed();
    drop(client);
    dripping.join().unwrap();
    // One that has begun its second request and stops there, too; and one whose body does not come.
    let mut second = wharf.client();
    second.ask("GET", "/a.txt", "");
    second.answer();
    second.send("GET /a.txt HT");
    assert_eq!(second.answer().status, 408);
    second.is_closed();
    let mut third = wharf.client();
    third.ask("GET", "/a.txt", "Content-Length: 10\r\n");
    assert_eq!(third.answer().status, 200);
    third.is_closed();
    wharf.lives();
    assert!(wharf.end().contains(", 2 too late, "));
}

/// Bytes come all the time, so that often one comes in the moment that it is too late.
#[test]
fn who_drips_a_request_fast_is_told_as_well() {
    let tree = Tree::new("drip-fast");
    let wharf = Server::serve(&tree.root(), &["--header-timeout", "0.2"]);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = wharf.client();
            thread::spawn(move || {
                let mut sender = client.socket.try_clone().unwrap();
                // Before the others start: this one has begun.
                sender.write_all(b"G").unwrap();
                let dripping = thread::spawn(move || {
                    let until = Instant::now() + DEADLINE;
                    while Instant::now() < until && sender.write_all(b"G").is_ok() {
                        thread::sleep(Duration::from_micros(300));
                    }
                });
                assert_eq!(client.answer().status, 408);
                client.socket.shutdown(Shutdown::Both).unwrap();
                dripping.join().unwrap();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(wharf.end().contains(", 40 too late, "));
}

#[test]
fn who_is_idle_is_closed_without_a_word() {
    let tree = Tree::new("idle");
    let wharf = Server::serve(&tree.root(), &["--idle-timeout", "0.2", "--header-timeout", "0.2"]);
    let mut silent = wharf.client();
    let mut client = wharf.client();
    client.ask("GET", "/a.txt", "");
    client.answer();
    client.is_closed();
    silent.is_closed();
    wharf.lives();
}

#[test]
fn connections_too_many_are_refused_until_others_have_gone() {
    let tree = Tree::new("most");
    let wharf = Server::serve(&tree.root(), &["--max-connections", "2"]);
    let mut clients = [wharf.client(), wharf.client()];
    for client in &mut clients {
        client.ask("GET", "/a.txt", "");
        client.answer();
    }
    let mut third = wharf.client();
    assert_eq!(third.answer().status, 503);
    third.is_closed();
    let [first, second] = &mut clients;
    second.ask("GET", "/a.txt", "");
    assert_eq!(second.answer().status, 200, "those that are there are not touched");
    first.socket.shutdown(Shutdown::Both).unwrap();
    let until = Instant::now() + DEADLINE;
    loop {
        let mut next = wharf.client();
        // It may be refused before the request has been written.
        let _ = next.socket.write_all(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        match next.more() {
            Ok(1..) if next.ahead.starts_with(b"HTTP/1.1 200") => break,
            _ => assert!(Instant::now() < until, "the place is not free again"),
        }
    }
}

#[test]
fn who_does_not_read_is_closed_and_frees_its_place() {
    let tree = Tree::new("unread");
    tree.write("large", vec![b'x'; LARGE]);
    let wharf = Server::serve(&tree.root(), &["--send-timeout", "0.3", "--max-connections", "1"]);
    let mut deaf = wharf.client();
    deaf.ask("GET", "/large", "");
    deaf.head();
    let until = Instant::now() + DEADLINE;
    loop {
        let mut next = wharf.client();
        let _ = next.socket.write_all(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        match next.more() {
            Ok(1..) if next.ahead.starts_with(b"HTTP/1.1 200") => break,
            _ => assert!(Instant::now() < until, "it still has its place"),
        }
    }
    let mut bytes = deaf.ahead.len();
    while let Ok(more @ 1..) = deaf.more() {
        deaf.ahead.clear();
        bytes += more;
    }
    assert!(bytes < LARGE);
    // And a pipeline whose answers nobody reads is not gathered in memory.
    let mut asking = wharf.client();
    let requests = "GET /sub/b.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    while asking.socket.write_all(requests.as_bytes()).is_ok() {}
}

#[test]
fn a_reset_in_the_middle_harms_nobody_else() {
    let tree = Tree::new("reset");
    tree.write("large", vec![b'x'; LARGE]);
    let wharf = Server::serve(&tree.root(), &[]);
    for number in 0..50 {
        let mut client = wharf.client();
        let target = if number % 2 == 0 { "/large" } else { "/a.txt" };
        (0..=number % 5).for_each(|_| client.ask("GET", target, ""));
        if number % 3 == 0 {
            client.more().unwrap();
        }
        rustix::net::sockopt::set_socket_linger(&client.socket, Some(Duration::ZERO)).unwrap();
    }
    wharf.lives();
    let last = wharf.end();
    assert!(!last.contains("cut off"), "all of them are gone by then: {last}");
}

// --- The program ---

#[test]
fn the_server_ends_when_what_it_was_sending_has_been_sent() {
    let tree = Tree::new("drain");
    tree.write("large", pattern(LARGE));
    let wharf = Server::serve(&tree.root(), &[]);
    let mut idle = wharf.client();
    idle.ask("GET", "/a.txt", "");
    idle.answer();
    let mut busy = wharf.client();
    busy.ask("GET", "/large", "");
    busy.head();
    wharf.signal(Signal::INT);
    // Who waits for nothing is closed at once, although the other one is still being served.
    idle.is_closed();
    while busy.ahead.len() < LARGE {
        assert!(busy.more().unwrap() > 0, "{} bytes came", busy.ahead.len());
    }
    assert!(busy.ahead == pattern(LARGE));
    busy.ahead.clear();
    busy.is_closed();
    let last = wharf.says("ended: ");
    assert!(last.starts_with("ended: 2 requests on 2 connections, ") && !last.contains("cut off"), "{last}");
}

#[test]
fn who_was_connected_when_it_stops_listening_is_answered() {
    const CLIENTS: usize = 200;
    let tree = Tree::new("backlog");
    tree.write("a.txt", b"answered");
    let wharf = Server::serve(&tree.root(), &[]);
    // The kernel makes these connections; the server can accept them only after it may know that it is to end.
    wharf.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| wharf.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("GET", "/a.txt", ""));
    wharf.signal(Signal::TERM);
    wharf.signal(Signal::CONT);
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!((answer.status, &answer.content[..]), (200, &b"answered"[..]), "client {number}");
    }
    let last = wharf.says("ended: ");
    assert!(last.starts_with("ended: 200 requests on 200 connections, ") && !last.contains("cut off"), "{last}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let tree = Tree::new("second");
    tree.write("large", vec![b'x'; LARGE]);
    let mut wharf = Server::serve(&tree.root(), &[]);
    let mut client = wharf.client();
    client.ask("GET", "/large", "");
    client.head();
    // Two at once are merged into one, so the second comes when the first was heard: the listener is gone then.
    wharf.signal(Signal::INT);
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(wharf.address).is_ok() {
        assert!(Instant::now() < until, "it goes on accepting");
    }
    wharf.signal(Signal::INT);
    wharf.says("ended at once");
    assert_eq!(wharf.wharf.child.wait().unwrap().code(), Some(130));
}

#[test]
fn each_request_is_a_line_of_the_log() {
    let tree = Tree::new("log");
    let path = tree.0.join("access.log");
    fs::write(&path, "an earlier line\n").unwrap();
    let wharf = Server::serve(&tree.root(), &["--access-log", path.to_str().unwrap()]);
    let mut client = wharf.client();
    for (verb, target) in [("GET", "/a.txt"), ("HEAD", "/a.txt"), ("GET", "/sub/b.bin"), ("GET", "/\"x\\")] {
        client.ask(verb, target, "");
        client.answer_to(verb == "HEAD");
    }
    client.send("bad\u{1b}[1m\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    drop(client);
    wharf.end();
    let log = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let ends = [
        "\"GET /a.txt HTTP/1.1\" 200 10",
        "\"HEAD /a.txt HTTP/1.1\" 200 -",
        "\"GET /sub/b.bin HTTP/1.1\" 200 100000",
        "\"GET /\\\"x\\\\ HTTP/1.1\" 400 ",
        "\"bad\\x1b[1m\" 400 81",
    ];
    assert_eq!(lines.len(), 1 + ends.len(), "{log}");
    for (line, end) in lines[1..].iter().zip(ends) {
        assert!(line.starts_with("127.0.0.1 - - [") && line.contains(&format!(" +0000] {end}")), "{line}");
    }
}

#[test]
fn figures_are_told_while_it_runs() {
    let tree = Tree::new("figures");
    let wharf = Server::serve(&tree.root(), &["--stats", "1"]);
    let _waiting = wharf.client();
    wharf.lives();
    let line = wharf.says("requests/s");
    assert!(line.starts_with("connections 1 ") && line.contains("requests 1"), "{line}");
}

#[test]
fn what_cannot_be_served_is_an_error_with_its_remedy() {
    let tree = Tree::new("errors");
    let file = tree.root().join("a.txt");
    for (arguments, words) in [
        (vec!["/nonexistent/directory"], "cannot be served"),
        (vec![file.to_str().unwrap()], "give a directory"),
        (vec![".", "--access-log", "/nonexistent/log"], "give another file"),
        (vec![".", "--listen", "nowhere"], "give ADDRESS:PORT"),
        (vec![".", "--listen", "unix:/tmp/x"], "serves TCP only; give ADDRESS:PORT"),
        (vec![".", "--header-timeout", "0"], "give a number of seconds"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wharf"))
            .args(["serve", "files", "--listen", "127.0.0.1:0"].iter().filter(|_| !arguments.contains(&"--listen")))
            .args(if arguments.contains(&"--listen") { &["serve", "files"][..] } else { &[] })
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn curl_finds_it_as_it_expects_a_server() {
    let curl = |arguments: &[&str]| Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).output();
    if curl(&["--version"]).is_err() {
        return skipped("curl", "it is not installed; apt-get install curl");
    }
    let tree = Tree::new("curl");
    let content = pattern(3_000_000);
    tree.write("c.bin", &content);
    let wharf = Server::serve(&tree.root(), &[]);
    let url = format!("http://{}/c.bin", wharf.address);
    let run = |arguments: &[&str]| {
        let output = curl(arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert!(run(&[&url]) == content);
    assert!(run(&["-r", "1000-1999", &url]) == content[1000..2000]);
    assert!(run(&["-r", "-77", &url]) == content[content.len() - 77..]);
    assert!(run(&["--http1.0", &url]) == content);
    let head = String::from_utf8(run(&["-I", &url])).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 3000000\r\n"), "{head}");
    let part = tree.0.join("part");
    fs::write(&part, &content[..1_234_567]).unwrap();
    run(&["-C", "-", "-o", part.to_str().unwrap(), &url]);
    assert!(fs::read(&part).unwrap() == content, "resumed");
    // Twice on one connection, and a directory by way of its redirection.
    let two = run(&[&format!("http://{}/a.txt", wharf.address), &format!("http://{}/a.txt", wharf.address)]);
    assert_eq!(two, b"some text\nsome text\n");
    tree.write("sub/index.html", "sub");
    assert_eq!(run(&["-L", &format!("http://{}/sub", wharf.address)]), b"sub");
    let etag = tree.0.join("etag");
    let etag = etag.to_str().unwrap();
    run(&["--etag-save", etag, &url]);
    assert_eq!(run(&["--etag-compare", etag, "-w", "%{http_code}", &url]), b"304");
    assert_eq!(run(&["-z", tree.root().join("c.bin").to_str().unwrap(), "-w", "%{http_code}", &url]), b"304");
    assert_eq!(run(&["-T", etag, "-o", "/dev/null", "-w", "%{http_code}", &url]), b"405", "an upload");
    assert_eq!(
        run(&["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}/../secret", wharf.address)]),
        b"400"
    );
}
