//! Which tests a server's options allow.

use super::options::Options;
use crate::protocol::parameters::Parameters;
use crate::protocol::{Failure, code, describe};

/// Whether the options allow such a test.
pub(super) fn allow(options: &Options, parameters: &Parameters) -> Result<(), Failure> {
    if parameters.streams() > options.max_streams {
        let text = format!("{} streams are asked for, {} are allowed", parameters.streams(), options.max_streams);
        return Err(Failure::new(code::STREAMS, text));
    }
    if let Some(limit) = options.bitrate_limit {
        let total = (parameters.bandwidth as u128) * parameters.streams() as u128;
        // A test that asks for no rate is judged by the rate that it reaches.
        if total > limit.into() {
            return Err(Failure::new(code::BANDWIDTH, describe(code::BANDWIDTH)));
        }
    }
    if let Some(most) = options.max_seconds {
        if parameters.time == 0 || parameters.time + parameters.omit > most {
            return Err(Failure::new(code::TOO_LONG, describe(code::TOO_LONG)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_beyond_a_limit_is_refused_with_the_code_for_it() {
        let code_of = |options: Options, parameters: Parameters| allow(&options, &parameters).map_err(|it| it.code);
        let options =
            || Options { max_streams: 2, bitrate_limit: Some(100), max_seconds: Some(5), ..Options::default() };
        let fits = || Parameters { parallel: 2, bandwidth: 50, time: 4, omit: 1, ..Parameters::default() };
        assert_eq!(code_of(options(), fits()), Ok(()));
        assert_eq!(code_of(options(), Parameters { bidirectional: true, ..fits() }), Err(code::STREAMS));
        assert_eq!(code_of(options(), Parameters { bandwidth: 51, ..fits() }), Err(code::BANDWIDTH));
        assert_eq!(code_of(options(), Parameters { bandwidth: 0, ..fits() }), Ok(()), "judged by what it reaches");
        assert_eq!(code_of(options(), Parameters { omit: 2, ..fits() }), Err(code::TOO_LONG));
        assert_eq!(code_of(options(), Parameters { time: 0, ..fits() }), Err(code::TOO_LONG), "it has no end");
        assert_eq!(code_of(Options::default(), Parameters { time: 0, ..Parameters::default() }), Ok(()));
    }
}
