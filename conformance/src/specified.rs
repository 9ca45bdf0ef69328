//! Which rows there are, and how much each obliges: the specification's own list, against which ours is checked.

#[cfg(test)]
use crate::row::Level;

/// The group's letter, and the numbers of its rows by level.
pub struct Group {
    pub letter: &'static str,
    pub name: &'static str,
    #[cfg_attr(not(test), allow(dead_code))]
    must: &'static str,
    #[cfg_attr(not(test), allow(dead_code))]
    should: &'static str,
    #[cfg_attr(not(test), allow(dead_code))]
    information: &'static str,
}

#[cfg(test)]
impl Group {
    /// The ids of the rows of one level.
    pub fn ids(&self, level: Level) -> impl Iterator<Item = String> {
        let numbers = match level {
            Level::Must => self.must,
            Level::Should => self.should,
            Level::Information => self.information,
        };
        let letter = self.letter;
        numbers.split_whitespace().map(move |number| format!("{letter}-{number}"))
    }
}

#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    Group { letter: "P", name: "the port",
        must: "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 22 23 24 30 31 33 34 35 37 38 43",
        should: "20 32 39 40",
        information: "19 21 36 41 42" },
    Group { letter: "D", name: "dequeuing and posting",
        must: "01 02 03 04 05 08 11 13 14 15 16 17 18 19 20 21 30 31 33 34 35 36 40 41 42 45 47 48 50 51",
        should: "06 07 09 10 22 23 32 43 44 46",
        information: "12 37 49" },
    Group { letter: "C", name: "concurrency",
        must: "01 02 03 04 05 06 07 08 09 11 12 16 18",
        should: "10 13 17",
        information: "14 15" },
    Group { letter: "O", name: "all operations",
        must: "01 02 03 04 07 08 09 10 11 14 17 18 20 21 22 24 25 28 30 32",
        should: "06 13 15 16 19 26 29 31 34",
        information: "05 12 23 27 33 35" },
    Group { letter: "R", name: "stream receive",
        must: "01 02 06 07 08 10 11 12 13 14 15 18 20",
        should: "03 04 09 16 19",
        information: "05 17 21 22" },
    Group { letter: "S", name: "stream send",
        must: "01 02 03 04 05 06 07 08 09 10 11 14",
        should: "12 13",
        information: "" },
    Group { letter: "U", name: "datagrams",
        must: "01 02 05 06 07 08 11 14 15",
        should: "03 04 09 10 12 13",
        information: "16" },
    Group { letter: "A", name: "accepting",
        must: "01 02 03 04 05 06 07 08 11 12 13 14 15 16 18 19 21 22 24 25 27 30",
        should: "09 10 17 20 23 26",
        information: "28 29" },
    Group { letter: "N", name: "connecting",
        must: "01 02 03 04 05 06 08 11",
        should: "07 09 10",
        information: "12 13" },
    Group { letter: "X", name: "disconnecting",
        must: "01 02 03 05 06 08 09 10",
        should: "04 07",
        information: "" },
    Group { letter: "T", name: "sending files",
        must: "01 02 03 04 05 11 13 14",
        should: "06 07 10 12",
        information: "08 09" },
    Group { letter: "F", name: "files",
        must: "01 02 03 05 07 08 10 15",
        should: "04 06 09 11 13 14",
        information: "12 16" },
    Group { letter: "Q", name: "pipes",
        must: "01 02 03 04 05 08",
        should: "06 07",
        information: "" },
    Group { letter: "K", name: "cancel, close, exit",
        must: "01 02 03 04 05 06 07 09 10 11 12 13 14 15 16 18 19 20 21 25 27 29",
        should: "08 17 22 23 28",
        information: "24 26" },
    Group { letter: "G", name: "related calls",
        must: "01 02 03 05 06 47",
        should: "04 07 10 11 13 14 15 16 17 20 21 22 23 25 26 27 29 30 31 32 40 41 42 43 44 45",
        information: "12 24 28 33 34 46" },
];
