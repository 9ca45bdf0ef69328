//! The client's end of the control connection: bytes in, actions out. It knows where the test stands, and so what the
//! next byte may be; what an action takes, and when a phase ends by itself, is its caller's to know.
//!
//! ```text
//! Connecting → Greeting → Asked → Streams → Ready → Started → Running → Settling → Counted → Told → Results → Display
//!                           ↑                                                                                  │  │
//!                           └────────────────────────── the second phase of a test of two ─────────────────────┘  ↓
//!                      (anywhere: Erring, if the server says that it failed)                          Draining → Over
//! ```

use super::decoder::Decoder;
use super::failure::{Failure, code, describe};
use super::results::Results;
use super::words::state;

/// What may wait to be understood: more than any frame has. The longest is the server's own report.
const INPUT_BYTES_MAX: usize = (64 << 20) + (1 << 20);
/// The results, where the server's own report comes with them …
const RESULTS_WITH_OUTPUT_BYTES_MAX: usize = 64 << 20;
/// … and where it does not: of the whole test, and of each stream.
const RESULTS_BYTES_MAX: usize = 64 << 10;
const STREAM_RESULT_BYTES_MAX: usize = 1024;

/// Where a client's test stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPhase {
    /// No connection yet.
    Connecting,
    /// The cookie is sent.
    Greeting,
    /// The parameters are sent.
    Asked,
    /// Streams are being made.
    Streams,
    /// All streams are there.
    Ready,
    /// The start was seen.
    Started,
    /// Data flows.
    Running,
    /// No more is sent; what is under way comes to its end.
    Settling,
    /// The counters are taken.
    Counted,
    /// The end is told.
    Told,
    /// The server's results are waited for.
    Results,
    /// The word to show the results is waited for.
    Display,
    /// State −2 was seen, its numbers are waited for.
    Erring,
    /// Only the end of the connection is waited for.
    Draining,
    /// All is closed.
    Over,
}

/// What the server's bytes ask of the client.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAction {
    /// The parameters are to be sent.
    SendParameters,
    /// The streams are to be made.
    MakeStreams,
    /// The test begins.
    Begin,
    /// Data may flow.
    Run,
    /// This end's results are to be sent.
    SendResults,
    /// The server's results are there.
    TakeResults(Box<Results>),
    /// The test is to be reported: it is through.
    Finish,
    /// The server has failed; the numbers that say why are still to come.
    AwaitError,
    /// The test cannot go on.
    Fail(Failure),
}

/// The control connection of one test.
#[derive(Debug)]
pub struct ClientControl {
    phase: ClientPhase,
    input: Decoder,
    /// The test has two phases, if the server can.
    two_phase: bool,
    /// 2 in the second phase of a test of two.
    round: u32,
    /// Numbers of the streams that the results may name.
    ids: Vec<i64>,
    results_bytes_max: usize,
}

impl ClientControl {
    /// Of a test that is to be made.
    pub fn new(two_phase: bool) -> ClientControl {
        ClientControl {
            phase: ClientPhase::Connecting,
            input: Decoder::default(),
            two_phase,
            round: 1,
            ids: Vec::new(),
            results_bytes_max: 0,
        }
    }

    /// Where the test stands.
    pub fn phase(&self) -> ClientPhase {
        self.phase
    }

    /// 2 in the second phase of a test of two.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Whether another phase may come after this one.
    pub fn is_first_of_two(&self) -> bool {
        self.two_phase && self.round == 1
    }

    // --- What the server says ---

    /// More bytes have come.
    ///
    /// # Errors
    ///
    /// They are more than there is to say.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input.push(bytes);
        match self.input.len() > INPUT_BYTES_MAX {
            true => Err(Failure::new(code::MESSAGE, "the peer says more than there is to say")),
            false => Ok(()),
        }
    }

    /// What the bytes so far ask for next; `ended`: no more will come.
    pub fn next(&mut self, ended: bool) -> Option<ClientAction> {
        match self.phase {
            ClientPhase::Erring => {
                let (code, errno) = self.input.error_pair(ended)?;
                Some(ClientAction::Fail(Failure::remote(code, errno)))
            }
            ClientPhase::Results => {
                let results = match self.input.frame(self.results_bytes_max) {
                    Ok(map) => Results::from_json(&map?, &self.ids),
                    Err(bad) => Err(Failure::new(code::RESULTS, format!("unable to receive results: {bad:?}"))),
                };
                Some(match results {
                    Ok(results) => {
                        self.phase = ClientPhase::Display;
                        ClientAction::TakeResults(Box::new(results))
                    }
                    Err(failure) => ClientAction::Fail(failure),
                })
            }
            ClientPhase::Draining | ClientPhase::Over => None,
            // The start may be heard before the answer to the last hello.
            ClientPhase::Streams if self.input.next() == Some(state::TEST_START) => None,
            _ => {
                let state = self.input.state()?;
                Some(self.state(state))
            }
        }
    }

    fn state(&mut self, state: i8) -> ClientAction {
        let (phase, action) = match (self.phase, state) {
            (_, state::ACCESS_DENIED) => return ClientAction::Fail(Failure::new(code::BUSY, describe(code::BUSY))),
            (_, state::SERVER_ERROR) => (ClientPhase::Erring, ClientAction::AwaitError),
            (_, state::SERVER_TERMINATE) => {
                let failure = Failure::new(code::SERVER_TERMINATED, describe(code::SERVER_TERMINATED));
                return ClientAction::Fail(failure);
            }
            (ClientPhase::Greeting, state::PARAM_EXCHANGE) => (ClientPhase::Asked, ClientAction::SendParameters),
            (ClientPhase::Asked, state::CREATE_STREAMS) => (ClientPhase::Streams, ClientAction::MakeStreams),
            (ClientPhase::Ready, state::TEST_START) => (ClientPhase::Started, ClientAction::Begin),
            (ClientPhase::Started, state::TEST_RUNNING) => (ClientPhase::Running, ClientAction::Run),
            // The results are sent when all that came is stored.
            (ClientPhase::Told, state::EXCHANGE_RESULTS) => (ClientPhase::Told, ClientAction::SendResults),
            (ClientPhase::Display, state::DISPLAY_RESULTS) => (ClientPhase::Display, ClientAction::Finish),
            (phase, state) => {
                let text = format!("received an unknown control message: {state} while {phase:?}");
                return ClientAction::Fail(Failure::new(code::MESSAGE, text));
            }
        };
        self.phase = phase;
        action
    }

    // --- What this end has done ---

    /// The connection is there, and the cookie on its way.
    pub fn connected(&mut self) {
        self.phase = ClientPhase::Greeting;
    }

    /// All streams are there.
    pub fn streams_made(&mut self) {
        self.phase = ClientPhase::Ready;
    }

    /// Nothing more is sent.
    pub fn stopped(&mut self) {
        self.phase = ClientPhase::Settling;
    }

    /// The counters are taken.
    pub fn counted(&mut self) {
        self.phase = ClientPhase::Counted;
    }

    /// The end is told.
    pub fn told(&mut self) {
        self.phase = ClientPhase::Told;
    }

    /// This end's results are sent. The server's are about streams with these numbers, and its report comes with them
    /// if `with_output`.
    pub fn results_sent(&mut self, ids: Vec<i64>, with_output: bool) {
        self.phase = ClientPhase::Results;
        self.results_bytes_max = match with_output {
            true => RESULTS_WITH_OUTPUT_BYTES_MAX,
            false => RESULTS_BYTES_MAX + STREAM_RESULT_BYTES_MAX * ids.len(),
        };
        self.ids = ids;
    }

    /// The server was asked for the second phase.
    pub fn second_phase(&mut self) {
        self.phase = ClientPhase::Asked;
        self.round = 2;
    }

    /// All is said.
    pub fn drain(&mut self) {
        self.phase = ClientPhase::Draining;
    }

    /// All is closed.
    pub fn close(&mut self) {
        self.phase = ClientPhase::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::super::decoder::frame;
    use super::*;

    const RESULTS: &str = r#"{"cpu_util_total":1,"cpu_util_user":1,"cpu_util_system":0,"sender_has_retransmits":0,
        "streams":[],"wharf_two_phase":1}"#;

    /// The actions, with everything done at once that they ask for.
    fn actions(two_phase: bool, said: &[u8]) -> (Vec<ClientAction>, ClientPhase) {
        let mut control = ClientControl::new(two_phase);
        control.connected();
        control.push(said).unwrap();
        let mut actions = Vec::new();
        while let Some(action) = control.next(true) {
            match &action {
                ClientAction::MakeStreams => control.streams_made(),
                ClientAction::Run => {
                    control.stopped();
                    control.counted();
                    control.told();
                }
                ClientAction::SendResults => control.results_sent(Vec::new(), false),
                ClientAction::Finish if control.is_first_of_two() => control.second_phase(),
                ClientAction::Finish => control.drain(),
                ClientAction::Fail(_) => control.close(),
                _ => {}
            }
            actions.push(action);
        }
        (actions, control.phase())
    }

    fn one_phase() -> Vec<u8> {
        let results: serde_json::Value = serde_json::from_str(RESULTS).unwrap();
        [&[10, 1, 2, 13][..], &frame(&results), &[14]].concat()
    }

    #[test]
    fn a_test_goes_through_in_one_phase_or_in_two() {
        let wanted = |actions: &[ClientAction]| {
            use ClientAction::{Begin, Finish, MakeStreams, Run, SendResults, TakeResults};
            matches!(actions, [MakeStreams, Begin, Run, SendResults, TakeResults(_), Finish])
        };
        let (actions_of_one, phase) = actions(false, &[&[9][..], &one_phase()].concat());
        assert_eq!((&actions_of_one[0], phase), (&ClientAction::SendParameters, ClientPhase::Draining));
        assert!(wanted(&actions_of_one[1..]), "{actions_of_one:?}");
        let (actions_of_two, phase) = actions(true, &[&[9][..], &one_phase(), &one_phase()].concat());
        assert_eq!(phase, ClientPhase::Draining);
        assert!(actions_of_two[1..].chunks(6).all(wanted) && actions_of_two.len() == 13, "{actions_of_two:?}");
    }

    #[test]
    fn a_start_before_the_streams_are_made_waits_for_them() {
        let mut control = ClientControl::new(false);
        control.connected();
        control.push(&[9, 10, 1]).unwrap();
        assert_eq!(control.next(false), Some(ClientAction::SendParameters));
        assert_eq!(control.next(false), Some(ClientAction::MakeStreams));
        assert_eq!(control.next(false), None);
        control.streams_made();
        assert_eq!(control.next(false), Some(ClientAction::Begin));
    }

    #[test]
    fn what_the_server_says_out_of_turn_ends_the_test() {
        let code_of = |said: &[u8]| match actions(false, said).0.pop() {
            Some(ClientAction::Fail(failure)) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code_of(&[0xFF]), code::BUSY);
        assert_eq!(code_of(&[9, 1]), code::MESSAGE);
        assert_eq!(code_of(&[9, 10, 1, 2, 11]), code::SERVER_TERMINATED);
        assert_eq!(code_of(&[9, 0xFE, 0, 0, 0, 114, 0, 0, 0, 0]), 114);
        assert_eq!(code_of(&[9, 10, 1, 2, 13, 0x7F, 0xFF, 0xFF, 0xFF]), code::RESULTS);
    }
}
