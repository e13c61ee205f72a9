//! Probes of all kinds, against real servers on the internet host, which can treat one ISP's customers as captive portals, broken
//! name servers and firewalls do.
#![cfg(test)]

mod failures;
mod scene;
mod servers;
mod works;
