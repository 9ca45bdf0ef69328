//! `wharf doctor` as its users meet it: what it says must be what is so, above all where io_uring is denied.

use serde_json::Value;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.arg("doctor").args(arguments).env_remove("RUST_LOG").env_remove("WHARF_ENGINE").stdin(Stdio::null());
    command
}

#[track_caller]
fn findings(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["findings"].as_array().unwrap().clone()
}

#[track_caller]
fn finding(findings: &[Value], name: &str) -> Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

/// What is said about files.
#[track_caller]
fn files(command: &mut Command) -> Value {
    finding(&findings(command), "files")
}

#[track_caller]
fn contains(value: &Value, part: &str) {
    assert!(value.as_str().is_some_and(|text| text.contains(part)), "{value}: {part:?} is not there");
}

/// Has the program started under a filter that answers `io_uring_setup` with an error.
fn without_ring(command: &mut Command, error: i32) -> &mut Command {
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let answer = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code.try_into().unwrap(), jt, jf, k };
    let mut filter = [
        // The call's number is the first word (struct seccomp_data, seccomp(2)).
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, answer, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len().try_into().unwrap_or(0), filter: filter.as_mut_ptr() };
        #[allow(unsafe_code)]
        // SAFETY: both calls read their arguments only while they run, and `program` names `filter`, which lives.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor locks.
    unsafe {
        command.pre_exec(install)
    }
}

/// Whether this machine gives a ring to those who ask for nothing else.
fn has_ring() -> bool {
    files(&mut doctor(&["--json"]))["value"] == "io_uring"
}

#[test]
fn everything_that_matters_is_told_and_judged() {
    let findings = findings(&mut doctor(&["--json"]));
    for name in ["kernel", "processors", "sockets", "files", "pidfd_open", "descriptors", "somaxconn", "memlock"] {
        let finding = finding(&findings, name);
        assert!(!finding["value"].as_str().unwrap().is_empty(), "{finding}");
        match finding["verdict"].as_str().unwrap() {
            "ok" => assert!(finding["remedy"].is_null(), "{finding}"),
            "warn" => assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{finding}"),
            other => panic!("{other}"),
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    contains(&finding(&findings, "kernel")["value"], release.trim());
    assert_eq!(finding(&findings, "sockets")["value"], "epoll");
    if finding(&findings, "files")["value"] != "io_uring" {
        assert!(std::env::var_os("CI").is_none(), "no io_uring on a machine for CI: {findings:?}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: what is said of io_uring: there is none here");
    }
}

#[test]
fn the_report_for_people_says_the_same() {
    let output = doctor(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    for finding in findings(&mut doctor(&["--json"])) {
        let start = format!("{:4}  {:14}", finding["verdict"].as_str().unwrap(), finding["name"].as_str().unwrap());
        assert!(said.lines().any(|line| line.starts_with(&start)), "{start:?} is not in\n{said}");
    }
}

#[test]
fn threads_that_were_asked_for_are_not_blamed_on_the_kernel() {
    let files = files(doctor(&["--json"]).env("WHARF_ENGINE", "threads"));
    assert_eq!((&files["value"], &files["verdict"]), (&"threads".into(), &"ok".into()));
    contains(&files["why"], "WHARF_ENGINE=threads asks for it");
    contains(&files["why"], if has_ring() { "the kernel would give an io_uring" } else { "gives no io_uring anyway" });
}

#[test]
fn where_a_filter_denies_io_uring_it_says_so() {
    for (error, words) in [(libc::EPERM, "Operation not permitted"), (libc::ENOSYS, "Function not implemented")] {
        let files = files(without_ring(&mut doctor(&["--json"]), error));
        assert_eq!((&files["value"], &files["verdict"]), (&"threads".into(), &"warn".into()));
        contains(&files["why"], "the kernel gives no io_uring");
        if has_ring() {
            contains(&files["why"], words);
            contains(&files["why"], "seccomp");
            contains(&files["remedy"], "seccomp");
        }
    }
}

/// As if `kernel.io_uring_disabled` were 2: setting it would take the ring from everything else on this machine.
#[test]
fn where_the_administrator_has_disabled_io_uring_it_says_so() {
    let setting = "/proc/sys/kernel/io_uring_disabled";
    let script = format!("echo 2 >\"$1\" && mount --bind \"$1\" {setting} && exec \"$0\" doctor --json");
    let fake = std::env::temp_dir().join(format!("wharf-doctor-setting-{}", std::process::id()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", &script, env!("CARGO_BIN_EXE_wharf")]).arg(&fake);
    let output = without_ring(command.env_remove("WHARF_ENGINE"), libc::EPERM).output();
    let _ = std::fs::remove_file(&fake);
    match output {
        Ok(output) if output.status.success() => {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let files = finding(report["findings"].as_array().unwrap(), "files");
            assert_eq!((&files["value"], &files["verdict"]), (&"threads".into(), &"warn".into()));
            contains(&files["why"], "kernel.io_uring_disabled is 2");
            assert_eq!(files["remedy"], "sudo sysctl -w kernel.io_uring_disabled=0");
        }
        other => {
            assert!(std::env::var_os("CI").is_none(), "nothing can be mounted over the setting: {other:?}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: a disabled io_uring: nothing can be mounted here: {other:?}");
        }
    }
}

#[test]
fn threads_that_were_asked_for_under_a_filter_are_told_with_both_causes() {
    let mut command = doctor(&["--json"]);
    let files = files(without_ring(command.env("WHARF_ENGINE", "threads"), libc::EPERM));
    assert_eq!((&files["value"], &files["verdict"]), (&"threads".into(), &"ok".into()));
    contains(&files["why"], "gives no io_uring anyway");
}

#[test]
fn a_ring_that_is_asked_for_and_denied_is_a_warning_and_no_threads_are_claimed() {
    let mut command = doctor(&["--json"]);
    let files = files(without_ring(command.env("WHARF_ENGINE", "io_uring"), libc::EPERM));
    assert_eq!(
        (&files["value"], &files["verdict"], &files["remedy"]),
        (&"none".into(), &"warn".into(), &"unset WHARF_ENGINE".into())
    );
}

#[test]
fn copies_go_on_where_io_uring_is_denied() {
    let source = std::env::current_exe().unwrap();
    let target = std::env::temp_dir().join(format!("wharf-doctor-copy-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["copy", "--sync", "--verify", "--force"]).args([&source, &target]).env_remove("WHARF_ENGINE");
    let output = without_ring(&mut command, libc::EPERM).output().unwrap();
    let copied = std::fs::read(&target).is_ok_and(|copy| copy == std::fs::read(&source).unwrap());
    let _ = std::fs::remove_file(&target);
    assert!(output.status.success() && copied, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_low_limit_is_a_warning_with_the_command_that_raises_it() {
    let limited = |script: &str| -> Output {
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_wharf")]).output().unwrap()
    };
    let output = limited("ulimit -S -n 256; exec \"$0\" doctor");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("warn  descriptors   256 (at most ") && said.contains("remedy: "), "{said}");
    let output = limited("ulimit -n 300; exec \"$0\" doctor");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("300 (at most 300)"), "{said}");
    assert!(said.contains("remedy: sudo prlimit --pid $$ --nofile=1048576:1048576"), "{said}");
}

#[test]
fn a_limit_that_is_too_low_for_anything_is_told_as_that() {
    // Fewer than a program needs to start; then for a port, for a file, for a ring.
    for most in 5..12 {
        let script = format!("ulimit -n {most}; exec \"$0\" doctor");
        let mut command = Command::new("/bin/sh");
        let output =
            command.args(["-c", &script, env!("CARGO_BIN_EXE_wharf")]).env_remove("RUST_LOG").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("TMPDIR") && !said.contains("not known"), "{most}: {said}");
        if output.status.success() {
            assert!(said.contains("remedy: ulimit -n ") || said.contains("remedy: sudo prlimit"), "{most}: {said}");
            assert!(said.contains("descriptors   "), "{most}: {said}");
        }
    }
}

#[test]
fn what_keeps_it_from_looking_is_one_sentence() {
    for (variable, value, part) in [
        ("WHARF_ENGINE", "steam", "give auto, io_uring or threads"),
        ("TMPDIR", "/does/not/exist", "set TMPDIR to a directory that can be written to"),
    ] {
        let output = doctor(&[]).env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
        assert!(said.starts_with("wharf: ") && said.lines().count() == 1 && said.contains(part), "{said}");
    }
}
