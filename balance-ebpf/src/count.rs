//! Counting, for each CPU by itself.

use balance_common::IspId;
use balance_common::layout::{Count, IspCounters, Verdict};

use crate::maps::{COUNTERS, VERDICTS};

/// Counts a packet from a LAN by what became of it.
#[inline(always)]
pub(crate) fn verdict(verdict: Verdict, bytes: u32) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the entry belongs to this CPU, and the program is not preempted by itself.
        add(unsafe { &mut *count }, bytes);
    }
}

/// Counts a packet steered to an ISP.
#[inline(always)]
pub(crate) fn steered(isp: IspId, bytes: u32, is_new: bool) {
    if let Some(counters) = counters(isp.get()) {
        add(&mut counters.steered, bytes);
        counters.new_flows += u64::from(is_new);
    }
}

/// Counts a packet that an ISP's device received, and whether it answers a SYN.
#[inline(always)]
pub(crate) fn received(isp: u8, bytes: u32, answers_syn: bool) {
    if let Some(counters) = counters(isp) {
        add(&mut counters.rx, bytes);
        counters.syn_answers += u64::from(answers_syn);
    }
}

/// Counts a packet that an ISP's device is about to send, and, if it is a SYN, whom of which class that asks.
#[inline(always)]
pub(crate) fn sent(isp: u8, bytes: u32, syn_class: Option<usize>) {
    if let Some(counters) = counters(isp) {
        add(&mut counters.tx, bytes);
        if let Some(syns) = syn_class.and_then(|class| counters.syns.get_mut(class)) {
            *syns = syns.wrapping_add(1);
        }
    }
}

/// Counts a packet that went the fast path, from an ISP or to one.
#[inline(always)]
pub(crate) fn forwarded(isp: u8, from_isp: bool, bytes: u32) {
    if let Some(counters) = counters(isp) {
        add(if from_isp { &mut counters.fast_rx } else { &mut counters.fast_tx }, bytes);
    }
}

#[inline(always)]
fn counters(isp: u8) -> Option<&'static mut IspCounters> {
    // SAFETY: as in `verdict`.
    COUNTERS.get_ptr_mut(u32::from(isp)).map(|counters| unsafe { &mut *counters })
}

#[inline(always)]
fn add(count: &mut Count, bytes: u32) {
    count.packets += 1;
    count.bytes += u64::from(bytes);
}
