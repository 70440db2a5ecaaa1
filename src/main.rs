//! Which of its processes this is: the child of a sandbox, or the program that the user called.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(quern_builder::cli::run(std::env::args_os()))
}
