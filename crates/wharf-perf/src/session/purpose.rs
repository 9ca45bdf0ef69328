//! What the operations of a test are for, as the numbers that come back with their packets.

/// What a timer of a test is for. One of each runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Alarm {
    /// The phase takes too long.
    Deadline,
    /// An interval is over.
    Tick,
    /// The time that does not count is over.
    Omit,
    /// The test's time is over.
    End,
    /// Sends and receives had time to finish.
    Settle,
    /// The client should have ended the test.
    Guard,
    /// Whether anything moves is to be looked at.
    Watch,
    /// A figure for the live line is due.
    Live,
    /// Whether the test is faster than the server allows is to be looked at.
    Limit,
    /// The hello was not answered.
    Hello,
}

impl Alarm {
    pub(crate) const ALL: [Alarm; 10] = [
        Alarm::Deadline,
        Alarm::Tick,
        Alarm::Omit,
        Alarm::End,
        Alarm::Settle,
        Alarm::Guard,
        Alarm::Watch,
        Alarm::Live,
        Alarm::Limit,
        Alarm::Hello,
    ];
}

/// What an operation of a test is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The control connection, or a signal.
    Control,
    /// A stream that is being made.
    Stream,
    /// What was wanted has moved, in this phase of a test of two.
    Reached(u32),
    /// No stream sends any more, in this phase of a test of two.
    Quiet(u32),
    /// A time of the test, with the number that the timer was armed under.
    Alarm(Alarm, u32),
}

/// The tag: the kind in the highest byte, the alarm in the next one, the number in the lower half.
const KIND_SHIFT: u32 = 56;
const ALARM_SHIFT: u32 = 48;

impl Purpose {
    pub(crate) fn tag(self) -> u64 {
        let (kind, alarm, number) = match self {
            Purpose::Control => (0_u64, 0_u64, 0),
            Purpose::Stream => (1, 0, 0),
            Purpose::Reached(round) => (2, 0, round),
            Purpose::Quiet(round) => (3, 0, round),
            Purpose::Alarm(alarm, number) => (4, alarm as u64, number),
        };
        kind << KIND_SHIFT | alarm << ALARM_SHIFT | u64::from(number)
    }

    /// What a tag stands for.
    ///
    /// # Panics
    ///
    /// When it comes from elsewhere.
    pub(crate) fn of_tag(tag: u64) -> Purpose {
        let number = tag as u32;
        match tag >> KIND_SHIFT {
            0 => Purpose::Control,
            1 => Purpose::Stream,
            2 => Purpose::Reached(number),
            3 => Purpose::Quiet(number),
            4 => Purpose::Alarm(Alarm::ALL[(tag >> ALARM_SHIFT) as u8 as usize], number),
            _ => unreachable!("no purpose has the tag {tag:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_comes_back_from_its_tag() {
        let alarms = Alarm::ALL.into_iter().flat_map(|alarm| [0, 1, u32::MAX].map(|it| Purpose::Alarm(alarm, it)));
        let others = [Purpose::Control, Purpose::Stream, Purpose::Reached(1), Purpose::Quiet(2)];
        for purpose in alarms.chain(others) {
            assert_eq!(Purpose::of_tag(purpose.tag()), purpose);
        }
    }
}
