//! Requests that wait: a queue out of which one can be taken by its name.

use super::Request;
use std::collections::{HashMap, VecDeque};

pub(super) struct Requests<R> {
    /// In their order. One that was taken out of the middle has left a gap; the first is none.
    line: VecDeque<Option<R>>,
    /// The first's place; the others' follow.
    first: u64,
    places: HashMap<(u64, u64), u64>,
}

impl<R> Default for Requests<R> {
    fn default() -> Requests<R> {
        // There is room before it.
        Requests { line: VecDeque::new(), first: u64::MAX / 2, places: HashMap::new() }
    }
}

impl<R: Request> Requests<R> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn push_back(&mut self, request: R) {
        self.places.insert(request.id(), self.first + self.line.len() as u64);
        self.line.push_back(Some(request));
    }

    pub(super) fn pop_front(&mut self) -> Option<R> {
        let request = self.line.pop_front().flatten()?;
        self.first += 1;
        self.places.remove(&request.id());
        self.skip_gaps();
        Some(request)
    }

    /// Takes one out, wherever it is.
    pub(super) fn remove(&mut self, id: (u64, u64)) -> Option<R> {
        let place = self.places.remove(&id)?;
        let request = self.line[usize::try_from(place - self.first).ok()?].take();
        self.skip_gaps();
        request
    }

    fn skip_gaps(&mut self) {
        while let Some(None) = self.line.front() {
            self.line.pop_front();
            self.first += 1;
        }
    }
}

/// What the ring does with the requests for which it has no room.
#[allow(dead_code, reason = "where there is no ring, only tests call it")]
impl<R: Request> Requests<R> {
    pub(super) fn push_front(&mut self, request: R) {
        self.first -= 1;
        self.places.insert(request.id(), self.first);
        self.line.push_front(Some(request));
    }

    /// Puts all of another queue behind its own.
    pub(super) fn append(&mut self, other: &mut Requests<R>) {
        if self.is_empty() {
            std::mem::swap(self, other);
        }
        other.drain().for_each(|request| self.push_back(request));
    }

    /// Puts all of another queue before its own.
    pub(super) fn prepend(&mut self, other: &mut Requests<R>) {
        for request in std::mem::take(&mut other.line).into_iter().flatten().rev() {
            self.push_front(request);
        }
        *other = Requests::default();
    }

    fn drain(&mut self) -> impl Iterator<Item = R> + use<R> {
        std::mem::take(self).line.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Handle, Work};
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Name(u64);

    impl Request for Name {
        fn handle(&self) -> Handle {
            -1
        }

        fn work(&self) -> Work {
            Work::Append
        }

        fn id(&self) -> (u64, u64) {
            (7, self.0)
        }

        fn pieces(&mut self, _into: &mut Vec<libc::iovec>) {}

        fn advance(&mut self, _bytes: usize) -> bool {
            true
        }

        fn is_wanted(&self) -> bool {
            true
        }

        fn end(self, _error: i32) {}
    }

    #[test]
    fn it_is_a_queue_whatever_is_taken_out_of_its_middle() {
        let mut random = fastrand::Rng::with_seed(8);
        let (mut requests, mut model) = (Requests::default(), VecDeque::new());
        let (mut others, mut other_model) = (Requests::default(), VecDeque::new());
        for number in 0..20_000 {
            match random.u8(..if model.len() > 8 { 8 } else { 6 }) {
                0 | 1 => {
                    requests.push_back(Name(number));
                    model.push_back(number);
                }
                2 => {
                    requests.push_front(Name(number));
                    model.push_front(number);
                }
                3 => {
                    others.push_back(Name(number));
                    other_model.push_back(number);
                }
                4 => {
                    if random.bool() {
                        requests.append(&mut others);
                        model.append(&mut other_model);
                    } else {
                        requests.prepend(&mut others);
                        other_model.append(&mut model);
                        std::mem::swap(&mut model, &mut other_model);
                    }
                    assert!(others.is_empty() && others.pop_front().is_none());
                }
                5 | 6 => assert_eq!(requests.pop_front(), model.pop_front().map(Name)),
                _ => {
                    let number = model.remove(random.usize(..model.len())).unwrap();
                    assert_eq!(requests.remove((7, number)), Some(Name(number)));
                    assert_eq!(requests.remove((7, number)), None);
                }
            }
            assert_eq!((requests.len(), requests.is_empty()), (model.len(), model.is_empty()));
        }
    }
}
