//! Two builds of the lab, for what is measured inside a process: a child of this build and one of another, each of
//! which takes a turn when it is told to. The two then differ in nothing but their wharf.
//!
//! The protocol: a line to the child's standard input is a turn, and the child answers with one line of JSON, the
//! turn's samples.

use crate::measure::Sample;
use crate::process::{Running, command};
use crate::stats::histogram;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

/// A sample on its way. Latencies are values in nanoseconds, and how often each came.
#[derive(Serialize, Deserialize)]
struct Told {
    messages_per_second: Option<f64>,
    cpu_us_per_message: Option<f64>,
    switches_per_message: Option<f64>,
    latency: Option<Vec<(u64, u64)>>,
}

impl Told {
    fn of(sample: &Sample) -> Told {
        let values = |latency: &hdrhistogram::Histogram<u64>| {
            latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
        };
        Told {
            messages_per_second: sample.messages_per_second,
            cpu_us_per_message: sample.cpu_us_per_message,
            switches_per_message: sample.switches_per_message,
            latency: sample.latency.as_ref().map(values),
        }
    }

    fn sample(self) -> Sample {
        let latency = self.latency.map(|values| {
            let mut latency = histogram();
            for (value, count) in values {
                let _ = latency.record_n(value, count);
            }
            latency
        });
        Sample {
            messages_per_second: self.messages_per_second,
            cpu_us_per_message: self.cpu_us_per_message,
            switches_per_message: self.switches_per_message,
            latency,
            ..Sample::default()
        }
    }
}

/// The child's side: a turn for each line, until the lab has gone.
pub fn take_turns(mut turn: impl FnMut() -> io::Result<Vec<Sample>>) -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        line?;
        let told: Vec<Told> = turn()?.iter().map(Told::of).collect();
        println!("{}", serde_json::to_string(&told)?);
        io::stdout().flush()?;
    }
    Ok(())
}

/// The lab's side of one child.
struct Build {
    name: String,
    _running: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Build {
    fn start(name: String, program: &Path, what: &str) -> io::Result<Build> {
        let arguments: Vec<String> = ["child", "turns"].into_iter().chain(what.split(' ')).map(str::to_owned).collect();
        let mut child = command(program, &arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let running = Running(child);
        let (input, output) = input.zip(output).ok_or_else(|| io::Error::other("no pipes to a child"))?;
        Ok(Build { name, _running: running, input, output: BufReader::new(output) })
    }

    fn turn(&mut self) -> io::Result<Vec<Sample>> {
        let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", self.name));
        // A program that has ended takes no line, and one that never knew the command has said so itself.
        let mut line = String::new();
        let asked = self.input.write_all(b"turn\n").and_then(|()| self.output.read_line(&mut line));
        if asked.is_err() || line.is_empty() {
            return Err(named(&"it takes no turns here; give --beside a build of the lab that has `child turns`"));
        }
        let told: Vec<Told> = serde_json::from_str(&line).map_err(|error| named(&error))?;
        Ok(told.into_iter().map(Told::sample).collect())
    }
}

/// The builds of a case: none where there is no other one.
pub struct Builds(Vec<Build>);

impl Builds {
    /// `kinds`: what is measured, each a name for the table, and the options after `turns`.
    pub fn start(beside: Option<&Path>, kinds: &[(&str, String)]) -> io::Result<Builds> {
        let Some(other) = beside else { return Ok(Builds(Vec::new())) };
        let own = std::env::current_exe()?;
        let mut builds = Vec::new();
        for (name, what) in kinds {
            builds.push(Build::start(format!("this build, apart: {name}"), &own, what)?);
            builds.push(Build::start(format!("other build: {name}"), other, what)?);
        }
        Ok(Builds(builds))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|build| build.name.as_str())
    }

    /// The samples of a turn of one of them.
    pub fn turn(&mut self, at: usize) -> io::Result<Vec<Sample>> {
        self.0[at].turn()
    }

    /// The same, for what has one sample a turn.
    pub fn sample(&mut self, at: usize) -> io::Result<Sample> {
        self.turn(at)?.pop().ok_or_else(|| io::Error::other("a turn without a sample"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_arrives_as_it_was_told() {
        let mut latency = histogram();
        (0..1000_u64).for_each(|value| latency.record(value * value).unwrap());
        let sample = Sample { messages_per_second: Some(3.5), latency: Some(latency.clone()), ..Sample::default() };
        let line = serde_json::to_string(&Told::of(&sample)).unwrap();
        let arrived = serde_json::from_str::<Told>(&line).unwrap().sample();
        assert_eq!((arrived.messages_per_second, arrived.cpu_us_per_message), (Some(3.5), None));
        let arrived = arrived.latency.unwrap();
        assert_eq!(arrived.len(), latency.len());
        for at in [0.01, 0.5, 0.99, 1.0] {
            let (told, found) = (latency.value_at_quantile(at), arrived.value_at_quantile(at));
            assert!(latency.equivalent(told, found), "{at}: {told}, {found}");
        }
    }

    #[test]
    fn without_another_build_there_are_none() {
        let builds = Builds::start(None, &[("get", "queue-burst".into())]).unwrap();
        assert_eq!(builds.names().count(), 0);
    }
}
