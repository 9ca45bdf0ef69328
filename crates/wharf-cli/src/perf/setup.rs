//! What both commands do before anything else, and how they refuse options that cannot be.

use super::options::Common;
use super::sink::Out;
use std::path::{Path, PathBuf};
use wharf_perf::client::use_processor;

/// What a shell reports of a command line that was not understood; clap ends with it, too.
const WRONG_USAGE: i32 = 2;

/// Options that cannot be are no failed test: scripts tell the two apart by the exit code.
pub fn refuse<R>(sentence: String) -> R {
    eprintln!("wharf: {sentence}");
    std::process::exit(WRONG_USAGE)
}

/// The file with the process's number; gone with this, however the command ends.
pub struct NumberFile(PathBuf);

impl NumberFile {
    fn write(path: &Path) -> Result<NumberFile, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok(NumberFile(path.to_owned()))
    }
}

impl Drop for NumberFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What both commands do before anything else.
pub fn prepare(common: &Common) -> Result<(Out, Option<NumberFile>), String> {
    if let Some(processor) = common.processor(true) {
        use_processor(processor).map_err(|error| format!("processor {processor} cannot be used (-A): {error}"))?;
    }
    let number = common.pidfile.as_deref().map(NumberFile::write).transpose()?;
    Ok((Out::new(common)?, number))
}
