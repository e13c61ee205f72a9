//! The flow cache of loaded programs, mapped into memory.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context, bail};
use aya::Ebpf;
use aya::maps::Map;
use balance_common::Family;
use balance_common::fast::{Cache, Dimensions, Ip, Row, Slot};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The memory of a flow cache, as the programs see it.
pub(crate) struct FlowCache<A> {
    rows: Mapped<Row>,
    slots: Mapped<Slot<A>>,
}

/// The memory of an array.
struct Mapped<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    count: u32,
    values: PhantomData<T>,
}

impl<A: Ip> FlowCache<A> {
    pub(crate) fn of(programs: &Ebpf, dimensions: &Dimensions) -> anyhow::Result<Self> {
        let (index, flows) = match A::FAMILY {
            Family::V4 => ("INDEX_V4", "FLOWS_V4"),
            Family::V6 => ("INDEX_V6", "FLOWS_V6"),
        };
        let rows = Mapped::of(programs, index, dimensions.rows)?;
        Ok(Self { rows, slots: Mapped::of(programs, flows, dimensions.slots)? })
    }
}

impl<A> Cache<A> for FlowCache<A> {
    fn row(&self, number: u32) -> Option<*mut Row> {
        self.rows.get(number)
    }

    fn slot(&self, number: u32) -> Option<*mut Slot<A>> {
        self.slots.get(number)
    }
}

impl<T> Mapped<T> {
    fn of(programs: &Ebpf, name: &str, count: u32) -> anyhow::Result<Self> {
        let Some(Map::Array(map)) = programs.map(name) else { bail!("no array {name}") };
        let bytes = NonZeroUsize::new(count as usize * size_of::<T>()).context("an empty array")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: it is new memory, at an address that the kernel chooses.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map.fd(), 0) };
        Ok(Self {
            start: start.with_context(|| format!("cannot map {name}"))?,
            bytes,
            count,
            values: PhantomData,
        })
    }

    fn get(&self, number: u32) -> Option<*mut T> {
        // SAFETY: there are so many.
        (number < self.count).then(|| unsafe { self.start.cast::<T>().as_ptr().add(number as usize) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped, and nobody has a pointer into it any more.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
