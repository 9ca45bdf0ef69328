//! The hello of a datagram stream: said until it is answered, or until there is no hope of that.

use crate::protocol::{Failure, code, datagram};
use crate::surroundings::port::{Datagrams, Op};
use std::time::Duration;
use wharf::Buffer;

/// A hello that was not answered is said again after so long, and once more after twice as long: not earlier, because a
/// stock server that did get it takes the second for data.
const HELLO_AGAIN: Duration = Duration::from_secs(1);
const HELLOS_MAX: u32 = 3;
/// What the answer to the last hello may take.
const HELLO_LAST: Duration = Duration::from_secs(27);
/// The answer's bytes, and more.
const ANSWER_BYTES: usize = 2048;

/// A datagram stream that is being made.
pub(super) struct Hello {
    socket: Datagrams,
    /// How often it was said.
    said: u32,
}

impl Hello {
    /// Says it for the first time; the answer comes with `answer`.
    pub(super) fn say(socket: Datagrams, answer: Op) -> Hello {
        let _ = socket.recv_from(Buffer::with_capacity(ANSWER_BYTES), answer);
        let _ = socket.send(&datagram::HELLO, Op::Nothing);
        Hello { socket, said: 1 }
    }

    /// How long the answer may take, before the hello is said again or given up.
    pub(super) fn patience(&self) -> Duration {
        match self.said {
            1 => HELLO_AGAIN,
            HELLOS_MAX => HELLO_LAST,
            _ => 2 * HELLO_AGAIN,
        }
    }

    /// Says it once more.
    ///
    /// # Errors
    ///
    /// It was said often enough.
    pub(super) fn say_again(&mut self) -> Result<(), Failure> {
        if self.said >= HELLOS_MAX {
            let text =
                "unable to read from stream socket: the server does not answer datagrams; is a firewall between?";
            return Err(Failure::new(code::STREAM_READ, text));
        }
        let _ = self.socket.send(&datagram::HELLO, Op::Nothing);
        self.said += 1;
        Ok(())
    }

    pub(super) fn close(self) {
        self.socket.close();
    }
}
