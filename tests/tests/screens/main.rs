//! What operators see, in a real terminal of 80x24 and of 200x50, and what is printed where there is none.
#![cfg(test)]

mod doctor;
mod status;
mod support;
mod top;
