//! Reading arrays by many values at a time. One by one it takes a system call for each.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use aya::maps::{MapData, MapError};
use aya::sys::SyscallError;
use aya_obj::generated::{bpf_attr__bindgen_ty_3 as Request, bpf_cmd};

/// How many bytes of values are read with one system call.
const BATCH: usize = 1 << 18;

/// All values of an array, by index. An error ends it; one is that values have another size.
pub(super) fn values<V: Pod + Default>(map: &MapData) -> impl Iterator<Item = Result<V, MapError>> {
    let mut reader = Reader::<V>::new(map);
    let mut batch = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(value) = batch.next() {
                return Some(Ok(value));
            }
            match reader.next_batch() {
                Ok(Some(values)) => batch = values.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    reader.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
    })
}

struct Reader<'a, V> {
    map: &'a MapData,
    indices: Vec<u32>,
    values: Vec<V>,
    state: State,
}

/// Where the kernel goes on.
#[derive(Clone, Copy)]
enum State {
    Start,
    /// After this index.
    After(u32),
    Ended,
}

impl<'a, V: Pod + Default> Reader<'a, V> {
    fn new(map: &'a MapData) -> Self {
        let count = (BATCH / size_of::<V>().max(1)).max(1);
        Self { map, indices: vec![0; count], values: vec![V::default(); count], state: State::Start }
    }

    /// The next values, perhaps none; none at all at the end.
    fn next_batch(&mut self) -> Result<Option<Vec<V>>, MapError> {
        let mut from = match self.state {
            State::Start => {
                self.check_sizes()?;
                0
            }
            State::After(index) => index,
            State::Ended => return Ok(None),
        };
        let mut to = 0_u32;
        let mut request = Request {
            in_batch: if matches!(self.state, State::Start) { 0 } else { (&raw mut from) as u64 },
            out_batch: (&raw mut to) as u64,
            keys: self.indices.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: u32::try_from(self.values.len()).unwrap_or(u32::MAX),
            map_fd: self.map.fd().as_fd().as_raw_fd().unsigned_abs(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the request points to memory that lives on and has room for as many indices and values of the map's sizes
        // as it says. Any bytes are a value. The kernel takes a request that is shorter than all of its attributes.
        let result = unsafe {
            let (command, size) = (bpf_cmd::BPF_MAP_LOOKUP_BATCH as libc::c_int, size_of::<Request>());
            libc::syscall(libc::SYS_bpf, command, &raw mut request, size)
        };
        self.state = State::After(to);
        if result < 0 {
            let error = io::Error::last_os_error();
            // The end; what is before it has been read.
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(syscall_error(error));
            }
            self.state = State::Ended;
        }
        Ok(Some(self.values.iter().copied().take(request.count as usize).collect()))
    }

    fn check_sizes(&self) -> Result<(), MapError> {
        let info = self.map.info()?;
        for (size, expected) in [(info.key_size(), size_of::<u32>()), (info.value_size(), size_of::<V>())] {
            if size as usize != expected {
                return Err(MapError::InvalidValueSize { size: size as usize, expected });
            }
        }
        Ok(())
    }
}

fn syscall_error(io_error: io::Error) -> MapError {
    SyscallError { call: "BPF_MAP_LOOKUP_BATCH", io_error }.into()
}

#[cfg(test)]
mod tests {
    use aya::maps::{Array, Map, MapType};
    use balance_lab::ready;

    use super::*;

    /// An array that has so many values.
    fn array(count: u32) -> MapData {
        let shape = aya_obj::Map::new_from_params(MapType::Array as u32, 4, 16, count, 0);
        let mut map = Map::Array(MapData::create(shape, "test", None).unwrap());
        let mut values = Array::<_, [u64; 2]>::try_from(&mut map).unwrap();
        for index in 0..count {
            values.set(index, value(index), 0).unwrap();
        }
        let Map::Array(data) = map else { panic!("another kind of map") };
        data
    }

    fn value(index: u32) -> [u64; 2] {
        [index.into(), u64::MAX]
    }

    #[test]
    fn every_value_is_read_once_however_many_there_are() {
        if !ready() {
            return;
        }
        let batch = u32::try_from(BATCH / 16).unwrap();
        for count in [1, 2, batch - 1, batch, batch + 1, 2 * batch, 5 * batch / 2] {
            let read: Result<Vec<_>, _> = values::<[u64; 2]>(&array(count)).collect();
            let read = read.unwrap();
            assert!(read.iter().copied().eq((0..count).map(value)), "{} of {count}", read.len());
        }
    }

    #[test]
    fn a_map_of_another_size_is_refused_once() {
        if !ready() {
            return;
        }
        let map = array(9);
        let mut other = values::<u64>(&map);
        assert!(matches!(other.next(), Some(Err(MapError::InvalidValueSize { size: 16, expected: 8 }))));
        assert!(other.next().is_none());
    }
}
