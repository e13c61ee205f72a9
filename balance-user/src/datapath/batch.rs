//! Reading hash maps by the thousand entries. One by one it takes two system calls for each entry, and begins anew
//! whenever the one that was read last is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use aya::maps::{MapData, MapError};
use aya::sys::SyscallError;
use aya_obj::generated::{bpf_attr__bindgen_ty_3 as Request, bpf_cmd};

/// How many entries are read with one system call. The kernel reads whole buckets of the hash, of a few each.
const BATCH: usize = 4096;

/// All entries of a hash map, an LRU one too. Those that come or go meanwhile may be missed. An error ends it; one is that
/// keys or values have other sizes.
pub(super) fn entries<K: Pod + Default, V: Pod + Default>(
    map: &MapData,
) -> impl Iterator<Item = Result<(K, V), MapError>> {
    let mut reader = Reader::<K, V>::new(map);
    let mut batch = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(entry) = batch.next() {
                return Some(Ok(entry));
            }
            match reader.next_batch() {
                Ok(Some(entries)) => batch = entries.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    reader.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
    })
}

struct Reader<'a, K, V> {
    map: &'a MapData,
    keys: Vec<K>,
    values: Vec<V>,
    state: State,
}

/// Where the kernel goes on.
#[derive(Clone, Copy)]
enum State {
    Start,
    /// From here; the number means something to the kernel only.
    From(u32),
    Ended,
}

impl<'a, K: Pod + Default, V: Pod + Default> Reader<'a, K, V> {
    fn new(map: &'a MapData) -> Self {
        let (keys, values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
        Self { map, keys, values, state: State::Start }
    }

    /// The next entries, perhaps none; none at all at the end.
    fn next_batch(&mut self) -> Result<Option<Vec<(K, V)>>, MapError> {
        let mut from = match self.state {
            State::Start => {
                self.check_sizes()?;
                0
            }
            State::From(position) => position,
            State::Ended => return Ok(None),
        };
        let mut to = 0_u32;
        let mut request = Request {
            in_batch: if matches!(self.state, State::Start) { 0 } else { (&raw mut from) as u64 },
            out_batch: (&raw mut to) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: u32::try_from(self.keys.len().min(self.values.len())).unwrap_or(u32::MAX),
            map_fd: self.map.fd().as_fd().as_raw_fd().unsigned_abs(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the request points to memory that lives on and has room for as many keys and values of the map's sizes
        // as it says. Any bytes are a key and a value. The kernel takes a request that is shorter than all of its attributes.
        let result = unsafe {
            let (command, size) = (bpf_cmd::BPF_MAP_LOOKUP_BATCH as libc::c_int, size_of::<Request>());
            libc::syscall(libc::SYS_bpf, command, &raw mut request, size)
        };
        self.state = State::From(to);
        if result < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The end; what is before it has been read.
                Some(libc::ENOENT) => self.state = State::Ended,
                // A bucket has more entries than that.
                Some(libc::ENOSPC) => {
                    self.state = if request.in_batch == 0 { State::Start } else { State::From(from) };
                    self.keys.resize(self.keys.len() * 2, K::default());
                    self.values.resize(self.values.len() * 2, V::default());
                    return Ok(Some(Vec::new()));
                }
                _ => return Err(syscall_error(error)),
            }
        }
        let read = self.keys.iter().copied().zip(self.values.iter().copied());
        Ok(Some(read.take(request.count as usize).collect()))
    }

    fn check_sizes(&self) -> Result<(), MapError> {
        let info = self.map.info()?;
        for (size, expected) in [(info.key_size(), size_of::<K>()), (info.value_size(), size_of::<V>())] {
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
    use std::ops::Range;

    use aya::maps::{HashMap, Map, MapType};
    use balance_lab::ready;

    use super::*;

    /// A map that has the entries of these keys.
    fn map(kind: MapType, keys: Range<u64>) -> MapData {
        let shape = aya_obj::Map::new_from_params(kind as u32, 8, 16, 40_000, 0);
        let data = MapData::create(shape, "test", None).unwrap();
        let mut map = if kind == MapType::Hash { Map::HashMap(data) } else { Map::LruHashMap(data) };
        let mut entries = HashMap::<_, u64, [u64; 2]>::try_from(&mut map).unwrap();
        for key in keys {
            entries.insert(key, [key, !key], 0).unwrap();
        }
        let (Map::HashMap(data) | Map::LruHashMap(data)) = map else { panic!("another kind of map") };
        data
    }

    #[test]
    fn every_entry_is_read_once_however_many_there_are() {
        if !ready() {
            return;
        }
        for kind in [MapType::Hash, MapType::LruHash] {
            for count in [0, 1, 2, 4095, 4096, 4097, 10_000] {
                let map = map(kind, 0..count);
                let read: Result<Vec<_>, _> = entries::<u64, [u64; 2]>(&map).collect();
                let mut read = read.unwrap();
                read.sort_unstable();
                let expected: Vec<_> = (0..count).map(|key| (key, [key, !key])).collect();
                assert!(read == expected, "{kind:?}: {} of {count}", read.len());
            }
        }
    }

    #[test]
    fn a_map_of_other_sizes_is_refused_once() {
        if !ready() {
            return;
        }
        let map = map(MapType::Hash, 0..9);
        let mut other = entries::<u64, u64>(&map);
        assert!(matches!(other.next(), Some(Err(MapError::InvalidValueSize { size: 16, expected: 8 }))));
        assert!(other.next().is_none());
        assert!(entries::<u32, [u64; 2]>(&map).next().unwrap().is_err());
    }
}
