//! The REST interface: shapes, refusals, and what a program may do.

mod environments;
mod execute;
mod refusals;
