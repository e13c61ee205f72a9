//! What the steering program would do with a packet, without any packet being sent.
//!
//! A second copy of the programs is loaded, which reads the instance's own settings, devices, rules, policies and tables, but
//! counts, and remembers flows, in maps of its own. So neither the instance's counters nor its flows are touched.

use aya::maps::{HashMap, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use aya_obj::maps::bpf_map_def;
use balance_common::layout::{Count, Seen, Verdict};
use object::{Object as _, ObjectSection as _};

use super::attach::{classifier, program_error};
use super::maps::map_error;
use super::{DatapathError, OBJECT, Pins};

/// The maps that the steering program only reads.
const READ: [&str; 11] = [
    "SETTINGS",
    "DEVICES",
    "LOCAL",
    "BUCKETS",
    "ACTIVE",
    "POLICIES",
    "RULE_PREFIXES",
    "RULE_FIELDS",
    "RULE_CLASSES",
    "ISPS",
    "PATHS",
];

/// The section of the object that defines the maps, one [`bpf_map_def`] after the other.
const DEFINITIONS: &str = "maps";

/// The size of `struct __sk_buff` of `linux/bpf.h`, and where in it these fields stand, in words.
const CONTEXT: usize = 192 / 4;
const MARK: usize = 8 / 4;
const INGRESS_INDEX: usize = 36 / 4;
const INDEX: usize = 40 / 4;

const VERDICTS: [Verdict; Verdict::COUNT as usize] = [
    Verdict::Steered,
    Verdict::Local,
    Verdict::Unparsable,
    Verdict::NotIp,
    Verdict::NoIsp,
    Verdict::Bypassed,
];

/// What the program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// What became of the packet; none if it was not counted, as no program of ours should do.
    pub verdict: Option<Verdict>,
    /// The packet's mark.
    pub mark: u32,
    /// The number of the policy that its rules had for the flow, or [`balance_common::layout::BYPASS`]; none if they were not asked.
    pub policy: Option<u8>,
}

/// Hands a packet without a mark to the instance's steering program, as if it came in by the device of this index. `hash` is that
/// of its flow.
pub fn rehearse(
    pins: &Pins,
    packet: &[u8],
    (index, ethernet): (u32, bool),
    hash: u64,
) -> Result<Rehearsed, DatapathError> {
    let object = unpinned()?;
    let mut loader = EbpfLoader::new();
    for name in READ {
        loader.map_pin_path(name, pins.map(name));
    }
    // Enough for one flow, and for what an LRU needs to work.
    loader.map_max_entries("LOCAL_MARKS", 1024);
    let mut programs = loader.load(&object).map_err(Box::new)?;
    let program = if ethernet { "lan_ingress" } else { "lan_ingress_ip" };
    let classifier = classifier(&mut programs, program)?;
    classifier.load().map_err(program_error(program))?;
    let mark = run(classifier, packet, index).map_err(program_error(program))?;
    Ok(Rehearsed { verdict: verdict(&programs)?, mark, policy: policy(&programs, hash)? })
}

/// The mark that the program gives the packet.
fn run(classifier: &SchedClassifier, packet: &[u8], index: u32) -> Result<u32, aya::programs::ProgramError> {
    let mut context = [[0; 4]; CONTEXT];
    for field in [INGRESS_INDEX, INDEX] {
        if let Some(field) = context.get_mut(field) {
            *field = index.to_ne_bytes();
        }
    }
    let mut after = context;
    classifier.test_run(TestRunOptions {
        data_in: Some(packet),
        ctx_in: Some(context.as_flattened()),
        ctx_out: Some(after.as_flattened_mut()),
        ..TestRunOptions::new()
    })?;
    Ok(after.get(MARK).map_or(0, |mark| u32::from_ne_bytes(*mark)))
}

/// The only one that was counted.
fn verdict(programs: &Ebpf) -> Result<Option<Verdict>, DatapathError> {
    let map = programs.map("VERDICTS").ok_or(DatapathError::Missing("VERDICTS"))?;
    let counts = PerCpuArray::<_, Count>::try_from(map).map_err(map_error("VERDICTS"))?;
    for verdict in VERDICTS {
        let counts = counts.get(&(verdict as u32), 0).map_err(map_error("VERDICTS"))?;
        if counts.iter().any(|count| count.packets > 0) {
            return Ok(Some(verdict));
        }
    }
    Ok(None)
}

fn policy(programs: &Ebpf, hash: u64) -> Result<Option<u8>, DatapathError> {
    let map = programs.map("SEEN").ok_or(DatapathError::Missing("SEEN"))?;
    let seen = HashMap::<_, u64, Seen>::try_from(map).map_err(map_error("SEEN"))?;
    // A generation of 0 says that it was remembered for another reason.
    Ok(seen.get(&hash, 0).ok().filter(|seen| seen.generation != 0).map(|seen| seen.policy))
}

/// The object with maps that are pinned nowhere. aya pins whatever the object says is to be pinned, or uses what is there.
fn unpinned() -> Result<Vec<u8>, DatapathError> {
    let mut object = OBJECT.to_vec();
    let section =
        object::File::parse(OBJECT).ok().and_then(|file| file.section_by_name(DEFINITIONS)?.file_range());
    let range = section.and_then(|(start, size)| {
        let start = usize::try_from(start).ok()?;
        Some(start..start.checked_add(usize::try_from(size).ok()?)?)
    });
    let definitions =
        range.and_then(|range| object.get_mut(range)).ok_or(DatapathError::Missing("definitions of maps"))?;
    for definition in definitions.chunks_exact_mut(size_of::<bpf_map_def>()) {
        // The last field says how it is pinned; 0 is not at all.
        if let Some(pinning) = definition.last_chunk_mut::<4>() {
            *pinning = [0; 4];
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use aya_obj::maps::PinningType;

    use super::*;

    #[test]
    fn the_copy_has_the_same_maps_but_none_of_them_is_pinned() {
        let (original, copy) =
            (aya_obj::Object::parse(OBJECT).unwrap(), aya_obj::Object::parse(&unpinned().unwrap()).unwrap());
        assert!(READ.iter().all(|name| original.maps.contains_key(*name)));
        assert_eq!(original.maps.len(), copy.maps.len());
        for (name, map) in &original.maps {
            let other = &copy.maps[name];
            assert_eq!(other.pinning(), PinningType::None, "{name}");
            let shape =
                |map: &aya_obj::Map| (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
            assert_eq!(shape(map), shape(other), "{name}");
        }
    }
}
