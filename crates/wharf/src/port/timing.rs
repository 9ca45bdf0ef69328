//! Timers, intervals and signals: operations without a device.

use super::associate::Route;
use super::record::{RepeatRecord, TimerRecord};
use super::refused::Refused;
use super::{Context, Key};
use crate::raw::{self, OperationId, Sink};
use std::io;
use std::time::Duration;

pub(super) fn timer<K: Key, C: Context>(
    route: &Route<'_, K, C>,
    after: Duration,
    key: K,
    context: C,
) -> Result<OperationId, Refused<C, ()>> {
    let token = TimerRecord::into_token(route.link.clone(), key, context);
    // A one-shot timer delivers one packet, so nothing is ever retained.
    route.port.timer(after, None, 0, token, Sink::Port, |_| {}).map_err(|error| {
        let (_, context) = TimerRecord::<K, C>::from_token(token);
        Refused { error: io::Error::from_raw_os_error(error), context, buffer: () }
    })
}

pub(super) fn interval<K: Key, C: Context + Clone + Sync>(
    route: &Route<'_, K, C>,
    period: Duration,
    key: K,
    context: C,
) -> io::Result<OperationId> {
    if period < raw::PERIOD_LEAST {
        let what = format!(
            "a period of {period:?} cannot be kept: it has to be 1 µs or more; what is to run all the time is posted \
             anew by its handler"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let token = RepeatRecord::new(route.link.clone(), key, context).into_token();
    let retain = RepeatRecord::<K, C>::retain;
    route.port.timer(period, Some(period), 0, token, Sink::Port, retain).map_err(|error| {
        RepeatRecord::<K, C>::release(token);
        io::Error::from_raw_os_error(error)
    })
}

pub(super) fn signal<K: Key, C: Context + Clone + Sync>(
    route: &Route<'_, K, C>,
    number: i32,
    key: K,
    context: C,
) -> io::Result<OperationId> {
    let token = RepeatRecord::new(route.link.clone(), key, context).into_token();
    let retain = RepeatRecord::<K, C>::retain;
    route.port.signal(number, 0, token, Sink::Port, retain).inspect_err(|_| {
        RepeatRecord::<K, C>::release(token);
    })
}
