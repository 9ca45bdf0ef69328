//! A line of the report, and the lines that are the same on every system.

/// One line of the report.
pub struct Finding {
    pub name: &'static str,
    pub value: String,
    /// What to think of it; empty where there is nothing to add.
    pub why: String,
    /// What to do about it: then it is a warning.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn fine(name: &'static str, value: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), why: why.into(), remedy: None }
    }

    pub fn warning(
        name: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { name, value: value.into(), why: why.into(), remedy: Some(remedy.into()) }
    }

    pub fn verdict(&self) -> &'static str {
        if self.remedy.is_some() { "warn" } else { "ok" }
    }
}

pub fn processors() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => Finding::fine("processors", count.to_string(), "a port runs as many threads at the same time"),
        Err(error) => Finding::fine("processors", "unknown", error.to_string()),
    }
}
