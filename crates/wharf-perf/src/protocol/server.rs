//! The server's end of the control connection: bytes in, actions out. It knows where the test stands, and so what the
//! next byte may be; what an action takes, and when a phase ends by itself, is its caller's to know.
//!
//! ```text
//! Greeting → Streams → Running → Settling → Results → Display → Draining → Over
//!               ↑                                        │
//!               └── the second phase of a test of two ───┘
//! ```

use super::decoder::Decoder;
use super::failure::{Failure, code, describe};
use super::parameters::Parameters;
use super::results::Results;
use super::words::state;

/// What may wait to be understood: the results, or, where more is allowed, the parameters …
const INPUT_BYTES_MAX: usize = 1 << 20;
/// … and what a client may have said behind them.
const BEHIND_PARAMETERS_BYTES_MAX: usize = 1 << 16;
/// A client's results: of the whole test, and of each stream.
const RESULTS_BYTES_MAX: usize = 64 << 10;
const STREAM_RESULT_BYTES_MAX: usize = 1024;

/// Where a server's test stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPhase {
    /// Parameters are waited for.
    Greeting,
    /// Streams are being made.
    Streams,
    /// Data flows.
    Running,
    /// The client has told the end; what is under way comes to its end.
    Settling,
    /// The client's results are waited for.
    Results,
    /// The client's last word is waited for.
    Display,
    /// Only the end of the connection is waited for.
    Draining,
    /// All is closed.
    Over,
}

/// What the client's bytes ask of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerAction {
    /// These parameters are asked for.
    Agree(Box<Parameters>),
    /// The client has ended the test.
    End,
    /// The client's results are there.
    TakeResults(Box<Results>),
    /// The streams of the second phase are to be made.
    SecondPhase,
    /// The test is through, and the client knows.
    Goodbye,
    /// The client has ended the test, and with it the session.
    GivenUp(Failure),
    /// The test cannot go on.
    Fail(Failure),
}

/// The control connection of one test.
#[derive(Debug)]
pub struct ServerControl {
    phase: ServerPhase,
    input: Decoder,
    parameters_bytes_max: usize,
    /// The test has two phases.
    two_phase: bool,
    /// 2 in the second phase of a test of two.
    round: u32,
    /// Numbers of the streams that the results may name.
    ids: Vec<i64>,
}

impl ServerControl {
    /// Of a test whose parameters may have this number of bytes.
    pub fn new(parameters_bytes_max: usize) -> ServerControl {
        ServerControl {
            phase: ServerPhase::Greeting,
            input: Decoder::default(),
            parameters_bytes_max,
            two_phase: false,
            round: 1,
            ids: Vec::new(),
        }
    }

    /// Where the test stands.
    pub fn phase(&self) -> ServerPhase {
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

    // --- What the client says ---

    /// More bytes have come.
    ///
    /// # Errors
    ///
    /// They are more than there is to say.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input.push(bytes);
        let parameters = self.parameters_bytes_max.saturating_add(BEHIND_PARAMETERS_BYTES_MAX);
        match self.input.len() > INPUT_BYTES_MAX.max(parameters) {
            true => Err(Failure::new(code::MESSAGE, "the peer says more than there is to say")),
            false => Ok(()),
        }
    }

    /// What the bytes so far ask for next; `ended`: no more will come.
    pub fn next(&mut self, ended: bool) -> Option<ServerAction> {
        match self.phase {
            ServerPhase::Greeting => {
                let asked = match self.input.frame(self.parameters_bytes_max) {
                    Ok(None) if ended => Err(Failure::new(code::PARAMETERS, describe(code::PARAMETERS))),
                    Ok(map) => Parameters::from_json(&map?),
                    Err(bad) => {
                        let text = format!("{}: {bad:?}", describe(code::PARAMETERS));
                        Err(Failure::new(code::PARAMETERS, text))
                    }
                };
                Some(match asked {
                    Ok(parameters) => ServerAction::Agree(Box::new(parameters)),
                    Err(failure) => ServerAction::Fail(failure),
                })
            }
            ServerPhase::Results => {
                // A second word that the test is over is not needed, and no length either.
                while self.input.next() == Some(state::TEST_END) {
                    self.input.state();
                }
                let told = match self.input.frame(RESULTS_BYTES_MAX + STREAM_RESULT_BYTES_MAX * self.ids.len()) {
                    Ok(None) if ended => {
                        Err(Failure::new(code::RESULTS, "unable to receive results: the client has left"))
                    }
                    Ok(map) => Results::from_json(&map?, &self.ids),
                    Err(bad) => Err(Failure::new(code::RESULTS, format!("unable to receive results: {bad:?}"))),
                };
                Some(match told {
                    Ok(results) => ServerAction::TakeResults(Box::new(results)),
                    Err(failure) => ServerAction::Fail(failure),
                })
            }
            ServerPhase::Settling | ServerPhase::Draining | ServerPhase::Over => None,
            _ => {
                let state = self.input.state()?;
                Some(self.state(state))
            }
        }
    }

    fn state(&mut self, state: i8) -> ServerAction {
        match (self.phase, state) {
            (ServerPhase::Running, state::TEST_END) => {
                self.phase = ServerPhase::Settling;
                ServerAction::End
            }
            (ServerPhase::Display, state::DONE) => ServerAction::Goodbye,
            (ServerPhase::Display, state::SECOND_PHASE) if self.is_first_of_two() => {
                self.phase = ServerPhase::Streams;
                self.round = 2;
                ServerAction::SecondPhase
            }
            (_, state::CLIENT_TERMINATE) => {
                ServerAction::GivenUp(Failure::new(code::CLIENT_TERMINATED, describe(code::CLIENT_TERMINATED)))
            }
            (_, state::DONE) => ServerAction::GivenUp(Failure::new(code::CLIENT_TERMINATED, "the client has given up")),
            _ => ServerAction::Fail(Failure::new(code::MESSAGE, format!("{}: {state}", describe(code::MESSAGE)))),
        }
    }

    // --- What this end has done ---

    /// The parameters are agreed to.
    pub fn agreed(&mut self, two_phase: bool) {
        self.phase = ServerPhase::Streams;
        self.two_phase = two_phase;
    }

    /// All streams are there, and data flows.
    pub fn running(&mut self) {
        self.phase = ServerPhase::Running;
    }

    /// The counters are taken, of streams with these numbers.
    pub fn counted(&mut self, ids: Vec<i64>) {
        self.phase = ServerPhase::Results;
        self.ids = ids;
    }

    /// This end's results are sent.
    pub fn results_sent(&mut self) {
        self.phase = ServerPhase::Display;
    }

    /// All is said.
    pub fn drain(&mut self) {
        self.phase = ServerPhase::Draining;
    }

    /// All is closed.
    pub fn close(&mut self) {
        self.phase = ServerPhase::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::super::decoder::frame;
    use super::*;
    use serde_json::{Value, json};

    /// The actions, with everything done at once that they ask for.
    fn actions(said: &[u8]) -> (Vec<ServerAction>, ServerPhase) {
        let mut control = ServerControl::new(1000);
        control.push(said).unwrap();
        let mut actions = Vec::new();
        while let Some(action) = control.next(true) {
            match &action {
                ServerAction::Agree(parameters) => {
                    control.agreed(parameters.two_phase);
                    control.running();
                }
                ServerAction::End => control.counted(Vec::new()),
                ServerAction::TakeResults(_) => control.results_sent(),
                ServerAction::SecondPhase => control.running(),
                ServerAction::Goodbye | ServerAction::GivenUp(_) | ServerAction::Fail(_) => control.close(),
            }
            actions.push(action);
        }
        (actions, control.phase())
    }

    fn results() -> Vec<u8> {
        let cpu = json!({"cpu_util_total": 1, "cpu_util_user": 1, "cpu_util_system": 0});
        let mut results = json!({"sender_has_retransmits": 0, "streams": []});
        results.as_object_mut().unwrap().extend(cpu.as_object().unwrap().clone());
        frame(&results)
    }

    fn parameters(value: Value) -> Vec<u8> {
        frame(&value)
    }

    #[test]
    fn a_test_goes_through_in_one_phase_or_in_two() {
        use ServerAction::{Agree, End, Goodbye, SecondPhase, TakeResults};
        let end = [&[4][..], &results()].concat();
        let (actions_of_one, phase) = actions(&[&parameters(json!({"tcp": true}))[..], &end, &[16]].concat());
        assert!(matches!(&actions_of_one[..], [Agree(_), End, TakeResults(_), Goodbye]), "{actions_of_one:?}");
        assert_eq!(phase, ServerPhase::Over);
        let two = parameters(json!({"tcp": true, "wharf_two_phase": 1}));
        let (actions_of_two, _) = actions(&[&two[..], &end, &[100], &end, &[16]].concat());
        assert!(
            matches!(&actions_of_two[..], [Agree(_), End, TakeResults(_), SecondPhase, End, TakeResults(_), Goodbye]),
            "{actions_of_two:?}"
        );
    }

    #[test]
    fn what_the_client_says_out_of_turn_ends_the_test() {
        let one = parameters(json!({"tcp": true}));
        let end = [&[4][..], &results()].concat();
        let last = |said: &[&[u8]]| actions(&said.concat()).0.pop();
        let code_of = |said: &[&[u8]]| match last(said) {
            Some(ServerAction::Fail(failure)) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code_of(&[&one, &[100]]), code::MESSAGE);
        assert_eq!(code_of(&[&one, &end, &[100]]), code::MESSAGE, "nobody agreed to a second phase");
        assert_eq!(code_of(&[&[0, 0, 4, 0]]), code::PARAMETERS);
        assert_eq!(code_of(&[&one, &[4, 4], &[0, 0]]), code::RESULTS);
        assert!(matches!(last(&[&one, &[12]]), Some(ServerAction::GivenUp(_))));
        assert!(matches!(last(&[&one, &[16]]), Some(ServerAction::GivenUp(_))));
    }
}
