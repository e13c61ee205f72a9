//! `[firewall]`: what comes in and what does not, and that nothing else notices.
#![cfg(test)]

mod changes;
mod groups;
mod own_rules;
mod scene;
mod traffic;
