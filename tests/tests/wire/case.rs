//! A case: packets, what is expected of them, and how that is found out.

use anyhow::{Context, ensure};
use balance_lab::checksum::{self, Layout, put};
use balance_lab::{Family, Frame};

use crate::conversation::{Conversation, Nat, Opening, Protocol};
use crate::mode::{MODES, Mode, TRUTH};
use crate::scene::{PLACES, Place, Scene, Shape};
use crate::shot::Shot;

/// The client's port in the first case.
const FIRST_PORT: u16 = 20_000;
/// How many wrong cases are shown.
const SHOWN: usize = 12;
/// How many packets a flow may need until it is fast, each way.
const SOON_FAST: usize = 40;

/// Which way the packets of a case go where there is a fast one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// None of them passes through the kernel's network stack.
    Fast,
    /// All of them do that do without the fast path.
    Slow,
    Either,
}

/// Packets of one flow.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) opening: Opening,
    pub(crate) shots: Vec<Shot>,
    pub(crate) way: Way,
    /// How many frames arrive, at whichever place.
    pub(crate) arriving: usize,
    /// Whether all checksums of what arrives are right.
    pub(crate) is_right: bool,
}

impl Case {
    /// One whose packets all go fast and arrive.
    pub(crate) fn fast(
        name: &str,
        (nat, protocol, family): (Nat, Protocol, Family),
        shots: impl Into<Vec<Shot>>,
    ) -> Self {
        let shots = shots.into();
        let name = format!("{name}, {nat:?}, {protocol:?}, {family:?}");
        let opening = Opening { nat, protocol, family };
        Self { name, opening, arriving: shots.len(), shots, way: Way::Fast, is_right: true }
    }
}

/// What came of a case in one mode.
struct Outcome {
    /// The frames on the wire, at each place.
    frames: [Vec<Vec<u8>>; 3],
    slow_packets: u64,
    missed_by_drivers: usize,
}

/// Sends the packets of the cases through the router in every mode, and compares.
pub(crate) fn compare(shape: Shape, cases: &[Case]) {
    let truth = run_all(TRUTH, shape, cases);
    let modes = MODES.iter().filter(|mode| shape.like_wires || mode.takes_offloads);
    let mut wrong = Vec::new();
    for mode in modes {
        let outcomes = run_all(*mode, shape, cases);
        for ((case, truth), outcome) in cases.iter().zip(&truth).zip(&outcomes) {
            if let Err(error) = judge(*mode, case, truth, outcome) {
                wrong.push(format!("{}: {}: {error:#}", mode.name, case.name));
            }
        }
    }
    let first = wrong.get(..wrong.len().min(SHOWN)).unwrap_or_default().join("\n");
    assert!(wrong.is_empty(), "{} of {} are wrong, among them:\n{first}", wrong.len(), cases.len());
}

fn run_all(mode: Mode, shape: Shape, cases: &[Case]) -> Vec<anyhow::Result<Outcome>> {
    let mut scene = Scene::new(mode, shape).unwrap();
    let outcomes = cases.iter().zip(FIRST_PORT..).map(|(case, port)| run(&mut scene, case, port)).collect();
    if mode.is_fast {
        assert!(scene.fast_packets().unwrap() > 0, "by its own account nothing went fast");
    }
    outcomes
}

fn run(scene: &mut Scene, case: &Case, port: u16) -> anyhow::Result<Outcome> {
    if case.opening.nat == Nat::TakenPort {
        Conversation::open(scene, Opening { nat: Nat::Masquerade, ..case.opening }, port)?;
    }
    let mut conversation = Conversation::open(scene, case.opening, port)?;
    ensure!(
        conversation.has_other_port() == (case.opening.nat == Nat::TakenPort),
        "the port is not translated as it should be"
    );
    warm_up(scene, &mut conversation)?;
    conversation.teach(scene, &case.shots)?;
    let mut slow = scene.slow_packets()?;
    ensure!(
        scene.missed_by_drivers()? > 0 || !scene.has_fast_drivers(),
        "nobody sees what drivers do not do"
    );
    for shot in &case.shots {
        conversation.send(scene, shot)?;
    }
    let frames = scene.collect()?;
    slow = scene.slow_packets()? - slow;
    let missed_by_drivers = scene.missed_by_drivers()?;
    let [lan, garden, isp] = PLACES.map(|place| frames[place as usize].as_slice());
    let frames = [
        on_the_wire(case, Place::Lan, lan)?,
        on_the_wire(case, Place::Garden, garden)?,
        on_the_wire(case, Place::Isp, isp)?,
    ];
    Ok(Outcome { frames, slow_packets: slow, missed_by_drivers })
}

/// Lets the flow get fast.
fn warm_up(scene: &Scene, conversation: &mut Conversation) -> anyhow::Result<()> {
    let mut before = scene.slow_packets()?;
    for _ in 0..SOON_FAST {
        conversation.go_on(scene)?;
        let now = scene.slow_packets()?;
        if now == before || !scene.mode.is_fast {
            return Ok(());
        }
        before = now;
    }
    anyhow::bail!("the flow does not get fast")
}

/// The frames as they stand on the wire, their checksums looked at.
fn on_the_wire(case: &Case, place: Place, frames: &[Frame]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for frame in frames {
        for mut bytes in frame.on_the_wire()? {
            if case.is_right {
                checksum::verify(&bytes).with_context(|| format!("at {place:?}: {}", hex(&bytes)))?;
            }
            forget(case, place, &mut bytes)?;
            all.push(bytes);
        }
    }
    Ok(all)
}

/// Zeroes what is different each time: the id that the router gives to its own packets and to
/// fragments that it makes, and a port that it chooses.
fn forget(case: &Case, place: Place, bytes: &mut [u8]) -> anyhow::Result<()> {
    let layout = Layout::of(bytes)?;
    if layout.version == 4 && layout.protocol == 1 && ![0, 8].contains(&bytes[layout.transport]) {
        put(bytes, layout.network + 4, 0)?;
        put(bytes, layout.network + 10, 0)?;
    }
    if layout.version == 6 && layout.is_fragment {
        // Conntrack has put them together and taken them apart again.
        put(bytes, layout.transport - 4, 0)?;
        put(bytes, layout.transport - 2, 0)?;
    }
    if case.opening.nat == Nat::TakenPort && place == Place::Isp {
        let (port, checksum) = match case.opening.protocol {
            Protocol::Tcp => (0, 16),
            Protocol::Udp => (0, 6),
            Protocol::Icmp => (4, 2),
        };
        put(bytes, layout.transport + port, 0)?;
        put(bytes, layout.transport + checksum, 0)?;
    }
    Ok(())
}

fn judge(
    mode: Mode,
    case: &Case,
    truth: &anyhow::Result<Outcome>,
    outcome: &anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    let truth = truth.as_ref().map_err(|error| anyhow::anyhow!("the truth: {error:#}"))?;
    let outcome = outcome.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let arrived: usize = truth.frames.iter().map(Vec::len).sum();
    ensure!(
        arrived == case.arriving,
        "{arrived} frames arrive, not {}: {:02x?}",
        case.arriving,
        truth.frames
    );
    for (place, (truth, frames)) in PLACES.iter().zip(truth.frames.iter().zip(&outcome.frames)) {
        for (number, (truth, frame)) in truth.iter().zip(frames).enumerate() {
            ensure!(truth == frame, "frame {number} at {place:?} differs:{}", difference(truth, frame));
        }
        let (count, expected) = (frames.len(), truth.len());
        ensure!(
            count == expected,
            "at {place:?} arrive {count} frames, not {expected}:\n    {}",
            hex_all(frames)
        );
    }
    let slow = outcome.slow_packets;
    match case.way {
        Way::Fast if mode.is_fast => {
            let missed = outcome.missed_by_drivers;
            ensure!(slow == 0, "{slow} packets went slow");
            ensure!(missed == 0, "{missed} packets were not forwarded by the driver");
        }
        Way::Slow => {
            let expected = truth.slow_packets;
            ensure!(slow == expected, "{slow} packets went slow, not {expected}");
        }
        _ => {}
    }
    Ok(())
}

/// Both frames around the first byte that is not the same.
fn difference(truth: &[u8], frame: &[u8]) -> String {
    let differing = truth.iter().zip(frame).position(|(one, other)| one != other);
    let first = differing.unwrap_or(truth.len().min(frame.len()));
    let (lengths, truth, frame) = ((truth.len(), frame.len()), hex(truth), hex(frame));
    format!(" from byte {first}, of {lengths:?}:\n    {truth}\n    {frame}")
}

fn hex_all<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let lines: Vec<_> = frames.into_iter().map(|frame| hex(frame)).collect();
    lines.join("\n    ")
}

/// The headers of a frame.
fn hex(frame: &[u8]) -> String {
    let bytes: Vec<_> = frame.iter().take(120).map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}

mod tests {
    use super::*;
    use crate::shot::forth;

    const FAST: Mode = Mode { name: "fast", is_fast: true, ..TRUTH };

    fn outcome(frames: &[&[u8]], slow_packets: u64) -> Outcome {
        let frames = frames.iter().map(|frame| frame.to_vec()).collect();
        Outcome { frames: [Vec::new(), Vec::new(), frames], slow_packets, missed_by_drivers: 0 }
    }

    fn judged(way: Way, mode: Mode, frames: &[&[u8]], slow_packets: u64) -> anyhow::Result<()> {
        let case = Case::fast("two", (Nat::None, Protocol::Udp, Family::V4), [forth(1), forth(2)]);
        let truth = outcome(&[b"one", b"two"], 2);
        judge(mode, &Case { way, ..case }, &Ok(truth), &Ok(outcome(frames, slow_packets)))
    }

    #[test]
    fn packets_that_should_be_fast_must_not_go_slow() {
        judged(Way::Fast, FAST, &[b"one", b"two"], 0).unwrap();
        judged(Way::Fast, FAST, &[b"one", b"two"], 1).unwrap_err();
        judged(Way::Fast, TRUTH, &[b"one", b"two"], 2).unwrap();
    }

    #[test]
    fn packets_of_the_kernel_must_not_go_fast() {
        judged(Way::Slow, FAST, &[b"one", b"two"], 2).unwrap();
        judged(Way::Slow, FAST, &[b"one", b"two"], 1).unwrap_err();
        judged(Way::Either, FAST, &[b"one", b"two"], 1).unwrap();
    }

    #[test]
    fn every_byte_and_every_frame_counts() {
        for frames in [&[&b"one"[..], b"twO"][..], &[b"one"], &[b"one", b"two", b"two"], &[b"two", b"one"]] {
            judged(Way::Either, FAST, frames, 2).unwrap_err();
        }
    }
}
