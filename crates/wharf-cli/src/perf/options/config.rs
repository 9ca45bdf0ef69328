//! `--config`: settings from a file, which the command line overrides.

use super::definitions::Run;
use clap::{CommandFactory, FromArgMatches, Parser, parser::ValueSource};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;

/// The command line anew, with the file's settings in front of it.
#[derive(Debug, Parser)]
#[command(name = "wharf perf run", args_override_self = true)]
struct Merged {
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    run: Run,
}

/// Options of which only one may be given: who says one of them overrides the file's choice.
const EXCLUSIVE: [&[&str]; 3] =
    [&["time", "bytes", "blockcount"], &["reverse", "bidir", "two_phase"], &["tos", "dscp"]];

/// Reads the settings of `--config` and lets the command line override them.
///
/// # Errors
///
/// A sentence that names the file, and the key and value that are wrong.
pub fn with_config(file: &Path) -> Result<Run, String> {
    let text = read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let settings = settings_of(file, &text)?;
    let own: Vec<OsString> = std::env::args_os().skip_while(|argument| argument != "run").skip(1).collect();
    merge(file, &settings, &own)
}

/// More than any settings have.
const FILE_MAX: u64 = 1 << 20;

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > FILE_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {FILE_MAX} bytes"))),
        false => Ok(text),
    }
}

fn settings_of(file: &Path, text: &str) -> Result<serde_json::Map<String, Value>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let value: Value = match file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        true => serde_json::from_str(text).map_err(|error| wrong(&error))?,
        false => toml::from_str(text).map_err(|error| wrong(&error))?,
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(wrong(&"the settings have to be one object, with long option names as keys")),
    }
}

fn merge(file: &Path, settings: &serde_json::Map<String, Value>, own: &[OsString]) -> Result<Run, String> {
    let command = Merged::command();
    let name = || std::iter::once(OsString::from("wharf perf run"));
    let said = command.clone().get_matches_from(name().chain(own.iter().cloned()));
    let is_said = |id: &str| said.value_source(id) == Some(ValueSource::CommandLine);
    let mut arguments = Vec::new();
    for (key, value) in settings {
        let id = key.replace('-', "_");
        let Some(argument) = command.get_arguments().find(|it| it.get_id() == id.as_str() && it.get_long().is_some())
        else {
            return Err(format!(
                "{}: there is no setting {key:?}; the names are those of the long options",
                file.display()
            ));
        };
        if id == "config" || id == "help" {
            return Err(format!("{}: {key:?} cannot be set in a file", file.display()));
        }
        let overridden = is_said(&id)
            || EXCLUSIVE.iter().any(|group| group.contains(&&*id) && group.iter().any(|other| is_said(other)));
        if overridden {
            continue;
        }
        let long = argument.get_long().unwrap_or_default();
        match value {
            Value::Bool(true) => arguments.push(format!("--{long}")),
            Value::Bool(false) => {}
            Value::String(text) => arguments.push(format!("--{long}={text}")),
            Value::Number(number) => arguments.push(format!("--{long}={number}")),
            _ => return Err(format!("{}: {key} has to be a number, text, true or false", file.display())),
        }
    }
    let all = name().chain(arguments.into_iter().map(OsString::from)).chain(own.iter().cloned());
    let wrong = |error: clap::Error| {
        let text = error.to_string();
        let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("{}: {text}", file.display())
    };
    let matches = command.try_get_matches_from(all).map_err(wrong)?;
    Merged::from_arg_matches(&matches).map(|merged| merged.run).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(settings: &str, own: &[&str]) -> Result<Run, String> {
        let file = Path::new("settings.toml");
        let own: Vec<OsString> = own.iter().map(OsString::from).collect();
        merge(file, &settings_of(file, settings)?, &own)
    }

    #[test]
    fn the_command_line_overrides_the_file_and_the_file_the_defaults() {
        let run = merged("parallel = 4\ntime = 5\nudp = true\nlength = '1400'", &["host", "-P", "2"]).unwrap();
        assert_eq!((run.parallel, run.time, run.udp, run.length, run.omit), (2, Some(5), true, Some(1400), 0));
        let run = merged("time = 5\nreverse = true", &["host", "-n", "1M", "--bidir"]).unwrap();
        assert_eq!((run.time, run.bytes, run.reverse, run.bidir), (None, Some(1 << 20), false, true));
        let run = merged("host = 'there'\nfail-under = '5G'", &["host"]).map(|run| run.host);
        assert!(run.unwrap_err().contains("host"));
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value_and_what_is_allowed() {
        let said = merged("parallel = 400", &["host"]).unwrap_err();
        assert!(said.contains("settings.toml") && said.contains("400") && said.contains("--parallel"), "{said}");
        assert!(said.contains("128"), "{said}");
        let said = merged("paralel = 4", &["host"]).unwrap_err();
        assert!(said.contains("paralel"), "{said}");
        assert!(merged("time = [1]", &["host"]).unwrap_err().contains("time"));
        let json = settings_of(Path::new("a.JSON"), r#"{"time": 3}"#).unwrap();
        assert_eq!(json["time"], 3);
        assert!(settings_of(Path::new("a.json"), "[]").is_err());
    }
}
