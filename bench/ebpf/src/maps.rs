//! Every map.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap, PerCpuArray};
use balance_bench_ebpf::{Injection, TARGETS as MOST_TARGETS};

/// Which packets to make.
#[map]
pub(crate) static INJECTION: Array<Injection> = Array::with_max_entries(1, 0);

/// The flow of the next packet.
#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// The devices that packets are handed to in turn, for XDP.
#[map]
pub(crate) static XDP_TARGETS: DevMap = DevMap::with_max_entries(MOST_TARGETS, 0);

/// The indices of the same devices, for TC.
#[map]
pub(crate) static TARGETS: Array<u32> = Array::with_max_entries(MOST_TARGETS, 0);

/// How many packets have arrived.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts a packet that has arrived.
#[inline(always)]
pub(crate) fn count_arrived() {
    if let Some(count) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the entry belongs to this CPU, and the program is not preempted by itself.
        unsafe { *count += 1 }
    }
}

/// The flow whose turn it is, of so many.
#[inline(always)]
pub(crate) fn next_flow(flows: u32) -> Option<u32> {
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: as above.
    unsafe {
        let flow = if *next < flows { *next } else { 0 };
        *next = flow + 1;
        Some(flow)
    }
}
