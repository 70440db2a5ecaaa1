//! The program: a child process of the sandbox, or the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = match quern_builder::run_if_child() {
        Some(code) => u8::try_from(code).unwrap_or(u8::MAX),
        None => quern_builder::run(std::env::args_os()),
    };
    ExitCode::from(code)
}
