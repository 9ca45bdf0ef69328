//! The file of `-F`.

use super::port::{File, Port};
use crate::protocol::parameters::{Parameters, Protocol};
use crate::protocol::{Failure, code, describe, errno};
use std::path::Path;

/// The file of `-F`: read by a sender, made anew by a receiver. Its name comes along, for messages.
pub(crate) fn open(port: &Port, path: &Path, parameters: &Parameters, sends: bool) -> Result<(File, String), Failure> {
    if parameters.protocol != Protocol::Tcp {
        return Err(Failure::new(code::FILE_OVER_UDP, describe(code::FILE_OVER_UDP)));
    }
    if parameters.streams() != 1 || parameters.verify || parameters.two_phase {
        let text = "a file goes over one stream in one direction: without -P, --bidir, --two-phase and --verify";
        return Err(Failure::new(code::FILE, text));
    }
    let mut options = std::fs::OpenOptions::new();
    match sends {
        true => options.read(true),
        false => options.write(true).create(true).truncate(true),
    };
    match port.open(path, &options, ()) {
        Ok(file) => Ok((file, path.display().to_string())),
        Err(error) => {
            let what = if sends { "read" } else { "written" };
            let errno = errno::number(&error);
            let text = format!("{} cannot be {what} (-F): {error}", path.display());
            Err(Failure { code: code::FILE, errno, text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machinery::Machinery;
    use super::*;

    #[test]
    fn a_file_goes_over_one_tcp_stream_and_must_be_there() {
        let port: Port = Machinery::default().port().unwrap();
        let code_of = |parameters: &Parameters, sends| {
            let path = std::env::temp_dir().join("wharf-perf-there-is-no-such-file");
            open(&port, &path, parameters, sends).map(drop).map_err(|failure| failure.code)
        };
        let tcp = Parameters::default();
        assert_eq!(code_of(&tcp, true), Err(code::FILE));
        assert_eq!(code_of(&Parameters { parallel: 2, ..tcp.clone() }, true), Err(code::FILE));
        assert_eq!(code_of(&Parameters { bidirectional: true, ..tcp.clone() }, true), Err(code::FILE));
        let udp = Parameters { protocol: Protocol::Udp, ..tcp };
        assert_eq!(code_of(&udp, true), Err(code::FILE_OVER_UDP));
    }
}
