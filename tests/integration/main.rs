//! Tests of the public interface, and of the program.

mod recipe;
