//! Windows: its completion port, and what this program lacks there. Wine is told from Windows, because it does some
//! things otherwise.

use crate::doctor::finding::{Finding, processors};
use crate::doctor::sync::{Trouble, sync};
use wharf::CompletionPort;
use windows_sys::Win32::Foundation as base;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

/// All that is looked at, in order.
pub fn findings() -> Result<Vec<Finding>, String> {
    let mut findings = vec![Finding::fine("kernel", wharf_perf::report::json::system_info(), ""), processors()];
    if let Some(version) = wine() {
        findings.push(Finding::warning(
            "wine",
            version,
            "it keeps no limit of running threads and wakes them first in, first out; some resets read as ends",
            "run it on Windows, or the program for this machine's own system",
        ));
    }
    findings.extend(engines()?);
    findings.push(Finding::fine("unix sockets", "no", "use TCP on 127.0.0.1 instead"));
    findings.push(Finding::fine("LISTEN_FDS", "no", "Windows passes no sockets on to a program that it starts"));
    findings.push(Finding::fine(
        "handles",
        "16777216 at most",
        "does not bite: each connection and open file takes one",
    ));
    Ok(findings)
}

fn engines() -> Result<Vec<Finding>, String> {
    let port = CompletionPort::<(), ()>::new().map_err(|error| format!("the port cannot be made: {error}"))?;
    let synced = sync(&port);
    let engine = port.stats().engine;
    let files = match synced {
        Ok(()) => Finding::fine("files", engine, "a sync ran on it"),
        Err(Trouble::File(sentence)) => return Err(sentence),
        Err(Trouble::Engine(error)) => Finding::warning(
            "files",
            "none",
            format!("a file cannot be synced: {error}"),
            "look at the disk and its file system; set RUST_LOG=debug and run it again",
        ),
    };
    Ok(vec![Finding::fine("sockets", engine, "the kernel has the queue, and executes the operations"), files])
}

/// Wine's version: it says who it is by a function that Windows has not.
#[allow(unsafe_code)]
fn wine() -> Option<String> {
    let ntdll: Vec<u16> = "ntdll.dll\0".encode_utf16().collect();
    // SAFETY: both names end with a zero; the module is never unloaded.
    let function = unsafe {
        let module: base::HMODULE = GetModuleHandleW(ntdll.as_ptr());
        GetProcAddress(module, c"wine_get_version".as_ptr().cast())?
    };
    // SAFETY: that is what Wine declares it as: no arguments, and a string that stays.
    let version = unsafe {
        let function: unsafe extern "C" fn() -> *const std::ffi::c_char = std::mem::transmute(function);
        std::ffi::CStr::from_ptr(function())
    };
    Some(version.to_string_lossy().into_owned())
}
