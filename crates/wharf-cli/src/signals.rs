//! What asks the program to end: signals, as packets of a port that has nothing else to do.

use crate::system;
use wharf::{CompletionPort, Context};

/// What a shell reports of a program that Ctrl+C has ended.
pub const ENDED_BY_SIGNAL: i32 = 130;

/// From now on what asks the program to end is a packet of this port. `context` is given the signal's number.
pub fn catch<C: Context + Clone + Sync>(
    port: &CompletionPort<(), C>,
    context: impl Fn(i32) -> C,
) -> Result<(), String> {
    for number in system::ENDING {
        let caught = port.signal(number, (), context(number));
        caught.map_err(|error| format!("Ctrl+C cannot be waited for: {error}"))?;
    }
    Ok(())
}

/// Who asks again does not want to wait.
pub fn end_at_once() -> ! {
    eprintln!("wharf: ended at once by a second signal");
    std::process::exit(ENDED_BY_SIGNAL);
}
