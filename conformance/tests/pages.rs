//! Runs the suite as anybody would, and compares the pages that it makes with those in `docs/`. The pages need every
//! row on every engine, which takes long; `cargo test` runs every row once, as the library is used.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

#[test]
fn no_row_fails_as_the_library_is_used() {
    let arguments = ["--engine", "auto", "--wake", "adaptive"];
    let output = Command::new(env!("CARGO_BIN_EXE_wharf-conformance")).args(arguments).output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
}

#[test]
#[ignore = "takes long; a part of .ci/run"]
fn no_row_fails_and_the_pages_in_docs_are_what_comes_of_it() {
    let directory = std::env::temp_dir().join(format!("wharf-pages-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_wharf-conformance")).arg("--pages").arg(&directory).output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{:.1?}", begun.elapsed());
    assert!(output.status.success(), "{}", output.status);
    let bless = std::env::var_os("WHARF_BLESS").is_some_and(|value| value == "1");
    for name in ["conformance.md", "known-differences.md"] {
        let made = std::fs::read_to_string(directory.join(name)).unwrap();
        let path = Path::new(DOCS).join(name);
        if bless {
            std::fs::write(&path, &made).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        for (number, (page, made)) in page.lines().zip(made.lines()).enumerate() {
            assert_eq!(page, made, "line {} of docs/{name}; WHARF_BLESS=1 rewrites it", number + 1);
        }
        assert!(page == made, "docs/{name} is stale; WHARF_BLESS=1 rewrites it");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
