//! Which of its processes this is: the child of a sandbox, the one that tells owners apart, or the program that the user called.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = match quern_builder::enter::run_if_child().or_else(quern_builder::userns::owners::run_if_child) {
        Some(code) => u8::try_from(code).unwrap_or(u8::MAX),
        None => quern_builder::cli::run(std::env::args_os()),
    };
    ExitCode::from(code)
}
