//! Every change of an ISP's state is announced: to hooks, by mail, by webhook and in the history; and whoever is told of it
//! and hangs or fails delays nothing.
#![cfg(test)]

mod history;
mod hooks;
mod mail;
mod support;
mod webhook;
