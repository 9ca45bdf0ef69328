//! The command line of `wharf perf`, from its words to the settings of a test.

mod config;
mod definitions;
mod settings;
mod values;

pub use config::with_config;
pub use definitions::{Common, Perf, Run, Serve};
pub use settings::Engine;
