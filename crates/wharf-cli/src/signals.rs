//! What asks the program to end: signals, as packets of a port that has nothing else to do.

use crate::system;
use wharf::{CompletionPort, Context};

/// From now on what asks the program to end is a packet of this port. `context` is given the signal's number.
pub fn catch<C: Context + Clone + Sync>(
    port: &CompletionPort<(), C>,
    context: impl Fn(i32) -> C,
) -> Result<(), String> {
    for number in system::ENDING.into_iter().filter(|&number| !system::stays_ignored(number)) {
        let caught = port.signal(number, (), context(number));
        caught.map_err(|error| format!("Ctrl+C cannot be waited for: {error}"))?;
    }
    Ok(())
}

/// Who asks again does not want to wait. A shell reports of a program that a signal has ended 128 and its number.
pub fn end_at_once(number: i32) -> ! {
    eprintln!("wharf: ended at once by a second signal");
    std::process::exit(128 + number);
}
