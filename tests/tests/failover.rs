//! An ISP that fails: how soon new flows have a way again. The example `failover_times` shows the distribution.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests may fail and tell as tests do"
)]

use std::time::Duration;

use balance_lab::figures::{Failure, failover};
use balance_lab::ready;

fn outages(failure: Failure, runs: usize) -> Vec<Duration> {
    let outages = failover(failure, runs).unwrap();
    println!("{failure:?}: {outages:?}");
    outages
}

#[test]
fn after_silent_death_with_flows_new_flows_have_a_way_within_a_second() {
    if !ready() {
        return;
    }
    let outages = outages(Failure::SilentWithFlows, 2);
    assert!(
        outages.iter().all(|outage| *outage > Duration::ZERO && *outage < Duration::from_secs(1)),
        "{outages:?}"
    );
}

#[test]
fn after_silent_death_without_traffic_new_flows_have_a_way_within_two_seconds() {
    if !ready() {
        return;
    }
    let outages = outages(Failure::SilentIdle, 3);
    assert!(outages.iter().all(|outage| *outage < Duration::from_secs(2)), "{outages:?}");
}

#[test]
fn after_loss_of_carrier_new_flows_have_a_way_at_once() {
    if !ready() {
        return;
    }
    // A hundredth of a second on a machine with nothing else to do; here other tests want it too.
    let outages = outages(Failure::Carrier, 3);
    assert!(outages.iter().all(|outage| *outage < Duration::from_secs(1)), "{outages:?}");
}
