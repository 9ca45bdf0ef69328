//! A sync of a temporary file, and why it did not come back well.

use crate::system;
use std::fs;
use std::io;
use wharf::{CompletionPort, Event};

/// Why a sync did not come back well.
pub enum Trouble {
    /// The temporary file is not to be had.
    File(String),
    /// The engine refused.
    Engine(io::Error),
}

/// Syncs a temporary file: of all operations, the one that always has to wait, and so starts the engine.
pub fn sync(port: &CompletionPort<(), ()>) -> Result<(), Trouble> {
    let path =
        std::env::temp_dir().join(format!("wharf-doctor-{}-{:?}", std::process::id(), std::thread::current().id()));
    let no_file = |error: io::Error| {
        // Not the directory's fault.
        if system::scarce(&error).is_some() {
            return Trouble::Engine(error);
        }
        let (path, why) = (path.display(), system::CHOOSE_TEMPORARY);
        Trouble::File(format!("the temporary file {path} cannot be made: {error}; {why}"))
    };
    let mut options = fs::OpenOptions::new();
    let file = port.open(&path, options.write(true).create_new(true), ()).map_err(no_file)?;
    let removed = fs::remove_file(&path);
    removed.map_err(no_file)?;
    file.sync(()).map_err(|refused| Trouble::Engine(refused.error))?;
    match port.get().map_err(|error| Trouble::Engine(error.into()))?.event {
        Event::Synced { result, .. } => result.map_err(Trouble::Engine),
        _ => unreachable!("nothing else was issued"),
    }
}
