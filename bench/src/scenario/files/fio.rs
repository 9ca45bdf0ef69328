//! Reads by fio, with its io_uring engine, as its users would start it.

use super::Job;
use crate::measure::Sample;
use std::io;
use std::process::{Command, Stdio};

pub fn reads(job: &Job) -> io::Result<Sample> {
    let output = Command::new("fio")
        .args(["--name=reads", "--rw=randread", "--bs=4k", "--ioengine=io_uring", "--time_based", "--runtime=1"])
        .args(["--output-format=json", "--randrepeat=0", "--norandommap", "--invalidate=0"])
        .arg(format!("--direct={}", u8::from(job.direct)))
        .arg(format!("--filename={}", job.path.display()))
        .arg(format!("--iodepth={}", job.depth))
        .stderr(Stdio::null())
        .output()?;
    sample(&String::from_utf8_lossy(&output.stdout))
}

fn sample(text: &str) -> io::Result<Sample> {
    // Notes may stand before it.
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..])?;
    let job = &json["jobs"][0];
    let number = |value: &serde_json::Value| value.as_f64().ok_or_else(|| io::Error::other("fio said nothing of it"));
    let count = number(&job["read"]["total_ios"])?;
    let time_us = number(&job["job_runtime"])? * 1000.0;
    let cpu = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0;
    Ok(Sample {
        messages_per_second: Some(number(&job["read"]["iops"])?),
        cpu_us_per_message: Some(cpu * time_us / count),
        ..Sample::default()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn fios_report_is_understood_with_notes_before_it() {
        let text = r#"fio: a note
            {"jobs":[{"read":{"total_ios":1000,"iops":2000.5},"job_runtime":500,"usr_cpu":10.0,"sys_cpu":30.0}]}"#;
        let sample = super::sample(text).unwrap();
        assert_eq!(sample.messages_per_second, Some(2000.5));
        // Two fifths of half a second, over a thousand reads.
        assert_eq!(sample.cpu_us_per_message, Some(200.0));
        assert!(super::sample("{\"jobs\":[{}]}").is_err());
    }
}
