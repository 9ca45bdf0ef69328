//! The program over TLS: its servers and its client against each other, against openssl, and against wrong options.

use rcgen::{CertificateParams, IsCa, KeyPair};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// After so long a test that waits is stuck.
const DEADLINE: Duration = Duration::from_secs(30);

/// A folder with a certificate for localhost and 127.0.0.1, and its key. Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = Folder(std::env::temp_dir().join(format!("wharf-cli-tls-{name}-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        for which in ["", "other-"] {
            let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
            params.is_ca = IsCa::ExplicitNoCa;
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("{which}localhost"));
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            std::fs::write(folder.0.join(format!("{which}cert.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.0.join(format!("{which}key.pem")), key.serialize_pem()).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wharf(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A program that is talked to. Dropping it kills it.
struct Talk {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Talk {
    fn start(mut command: Command) -> Talk {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, lines) = channel();
        let (err, errors) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(out.send(line)))
        });
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(err.send(line)))
        });
        Talk { child, lines, errors }
    }

    fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn hear(&self, line: &str) {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(heard) => assert_eq!(heard, line),
            Err(RecvTimeoutError::Timeout) => panic!("{line:?} does not come"),
            Err(_) => panic!("it ended before {line:?} came: {:?}", self.errors.try_iter().collect::<Vec<_>>()),
        }
    }

    /// A line of stderr with these words.
    #[track_caller]
    fn error(&self, words: &str) {
        let until = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        while let Ok(line) = self.errors.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains(words) {
                return;
            }
            others.push(line);
        }
        panic!("{words:?} is not among {others:?}");
    }

    /// Nothing more to say; returns the exit code.
    #[track_caller]
    fn leave(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server over TLS, and its address.
fn serve(what: &str, folder: &Folder) -> (Talk, SocketAddr) {
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let options = ["serve", what, "--listen", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key, "-v"];
    let server = Talk::start(wharf(&options));
    let line = server.lines.recv_timeout(DEADLINE).unwrap();
    let address = line.strip_prefix("listening on ").unwrap().parse().unwrap();
    (server, address)
}

/// Runs the client with a line to say, to its end.
fn chat(address: &str, options: &[&str]) -> Output {
    let mut command = wharf(&["chat", address]);
    let command = command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"is anybody there?\n");
    child.wait_with_output().unwrap()
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("wharf: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn a_chat_over_tls_is_heard_by_everybody() {
    let folder = Folder::new("chat");
    let (_server, address) = serve("chat", &folder);
    let server = format!("localhost:{}", address.port());
    let certificate = folder.path("cert.pem");
    let client = || Talk::start(wharf(&["chat", &server, "--tls", "--tls-ca", &certificate]));
    let mut ann = client();
    ann.say("here is Ann\n");
    ann.hear("here is Ann");
    let mut bob = client();
    bob.say("and Bob\n");
    bob.hear("and Bob");
    ann.hear("and Bob");
    assert_eq!(bob.leave(), Some(0));
    ann.say("alone again\n");
    ann.hear("alone again");
    assert_eq!(ann.leave(), Some(0));
}

#[test]
fn openssl_talks_to_our_server() {
    if Command::new("openssl").arg("version").output().is_err() {
        let why = "openssl is missing; install it with: apt-get install openssl";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        // Not by `eprintln`, whose output a passed test swallows.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the server against openssl: {why}");
        return;
    }
    let folder = Folder::new("openssl");
    let (server, address) = serve("echo", &folder);
    let (address, certificate) = (address.to_string(), folder.path("cert.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            &certificate,
            "-verify_return_error",
            "-quiet",
            version,
        ]);
        let mut client = Talk::start(openssl);
        client.say("hello from openssl\n");
        client.hear("hello from openssl");
        let large = format!("{}\n", "x".repeat(100_000));
        client.say(&large);
        client.hear(large.trim_end());
    }
    // Too old for us.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).stdin(Stdio::null());
    assert!(!openssl.output().unwrap().status.success());
    server.error("no version or cipher of TLS in common");
}

#[test]
fn the_client_says_what_is_wrong_and_which_option_mends_it() {
    let folder = Folder::new("client");
    let (server, address) = serve("echo", &folder);
    let (address, certificate) = (address.to_string(), folder.path("cert.pem"));
    let (other, key) = (folder.path("other-cert.pem"), folder.path("key.pem"));
    fails(&chat(&address, &["--tls", "--tls-ca", &other]), &["cannot connect", "signed by nobody", "--tls-ca FILE"]);
    server.error("the client does not accept this side's certificate");
    let named = ["--tls", "--tls-ca", &certificate, "--tls-name", "example.org"];
    fails(&chat(&address, &named), &["cannot connect", "not for example.org", "--tls-name NAME"]);
    fails(&chat(&address, &["--tls", "--tls-ca", &key]), &["key.pem holds a key and no certificate"]);
    fails(&chat(&address, &["--tls", "--tls-ca", "/nowhere.pem"]), &["/nowhere.pem cannot be read"]);
    fails(&chat("unix:/nowhere", &["--tls", "--tls-ca", &certificate]), &["no use for TLS"]);
    // Plain text at a server for TLS, at both ends.
    fails(&chat(&address, &[]), &["the server speaks TLS", "--tls"]);
    server.error("the client speaks plain text, not TLS");
    // Options without what they belong to are wrong usage.
    assert_eq!(chat(&address, &["--tls-ca", &certificate]).status.code(), Some(2));
    // Whoever looks away is told so.
    let mut insecure = Talk::start(wharf(&["chat", &address, "--tls", "--tls-insecure"]));
    insecure.error("--tls-insecure: the server is not checked");
    insecure.say("anybody?\n");
    insecure.hear("anybody?");
    assert_eq!(insecure.leave(), Some(0));

    let plain = Talk::start(wharf(&["serve", "echo", "--listen", "127.0.0.1:0"]));
    let line = plain.lines.recv_timeout(DEADLINE).unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    fails(&chat(address, &["--tls", "--tls-ca", &certificate]), &["speaks no TLS", "connect without TLS"]);
}

#[test]
fn a_server_with_wrong_files_says_so_before_it_listens() {
    let folder = Folder::new("server");
    let (certificate, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let serve = |certificate: &str, key: &str, listen: &str| {
        let options = ["serve", "echo", "--listen", listen, "--tls-cert", certificate, "--tls-key", key];
        let output = wharf(&options).stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        output
    };
    let any = "127.0.0.1:0";
    fails(
        &serve(&certificate, &folder.path("other-key.pem"), any),
        &["cannot serve over TLS", "do not belong together"],
    );
    fails(&serve("/nowhere.pem", &key, any), &["/nowhere.pem cannot be read", "PEM"]);
    fails(&serve("/dev/zero", &key, any), &["/dev/zero has more than", "PEM"]);
    fails(&serve(&certificate, "/dev/zero", any), &["/dev/zero has more than", "PEM"]);
    fails(&serve(&key, &certificate, any), &["key.pem holds a key and no certificate"]);
    fails(&serve(&certificate, &key, "unix:/nowhere"), &["no use for TLS"]);
    let half = wharf(&["serve", "echo", "--tls-cert", &certificate]).output().unwrap();
    assert_eq!(half.status.code(), Some(2));
}

/// The recipe in the guide is what a reader copies: it has to work.
#[test]
fn the_recipe_in_the_guide_makes_a_certificate_that_serves() {
    if Command::new("openssl").arg("version").output().is_err() {
        let why = "openssl is missing; install it with: apt-get install openssl";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: the recipe for a certificate: {why}");
        return;
    }
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let begin = guide.find("openssl req").expect("the guide has the recipe");
    let recipe = &guide[begin..begin + guide[begin..].find("wharf serve").expect("and what follows it")];
    let folder = Folder::new("recipe");
    for file in ["cert.pem", "key.pem"] {
        std::fs::remove_file(folder.path(file)).unwrap();
    }
    let made = Command::new("sh").args(["-ec", recipe]).current_dir(&folder.0).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (_server, address) = serve("echo", &folder);
    let server = format!("localhost:{}", address.port());
    let output = chat(&server, &["--tls", "--tls-ca", &folder.path("cert.pem")]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "is anybody there?\n", "{output:?}");
    let mut read = String::new();
    std::fs::File::open(folder.path("key.pem")).unwrap().read_to_string(&mut read).unwrap();
    assert!(read.contains("PRIVATE KEY"));
}
