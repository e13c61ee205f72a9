//! What the daemon serves by HTTP: the control socket, metrics, and the web page.
#![cfg(test)]

mod metrics;
mod page;
mod socket;
