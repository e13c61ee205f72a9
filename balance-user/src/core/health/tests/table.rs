//! Every input in every state.

use super::*;

#[derive(Clone, Copy, Debug)]
enum Input {
    GoodRound,
    /// One target of two answers, which is a quorum.
    QuorumOnly,
    BadRound,
    BadRounds,
    SendingFails,
    Silence,
    PathLost,
    PathLostAndBack,
    OthersGone,
    OthersGoneAndGoodRound,
    GoodForUpAfter,
    Reconfigured,
    GoodForTwoMinutes,
    DeadForLong,
    LossyForAMinute,
    LifeAndNoAnswers,
}

impl Input {
    const ALL: [Self; 16] = [
        Self::GoodRound,
        Self::QuorumOnly,
        Self::BadRound,
        Self::BadRounds,
        Self::SendingFails,
        Self::Silence,
        Self::PathLost,
        Self::PathLostAndBack,
        Self::OthersGone,
        Self::OthersGoneAndGoodRound,
        Self::GoodForUpAfter,
        Self::Reconfigured,
        Self::GoodForTwoMinutes,
        Self::DeadForLong,
        Self::LossyForAMinute,
        Self::LifeAndNoAnswers,
    ];

    fn apply(self, bench: &mut Bench) {
        match self {
            Self::GoodRound => bench.good_round(20),
            Self::QuorumOnly => {
                bench.next_round();
                bench.now += ms(20);
                bench.health.answered(bench.sent[1].sequence, ms(20), bench.now);
            }
            Self::BadRound => {
                bench.next_round();
                bench.fail_all();
            }
            Self::BadRounds => {
                for _ in 0..4 {
                    bench.next_round();
                    bench.fail_all();
                }
            }
            Self::SendingFails => {
                bench.next_round();
                bench.health.failed(bench.sent[0].sequence, "network unreachable".into(), bench.now);
            }
            Self::Silence => bench.health.silent(12, bench.now),
            Self::PathLost => bench.health.set_path(Some("no carrier on eth0".into()), bench.now),
            Self::PathLostAndBack => {
                Self::PathLost.apply(bench);
                bench.health.set_path(None, bench.now);
            }
            Self::OthersGone => bench.health.set_others_usable(false, bench.now),
            Self::OthersGoneAndGoodRound => {
                Self::OthersGone.apply(bench);
                bench.good_round(20);
            }
            Self::GoodForUpAfter => {
                let end = bench.now + ms(7000);
                while bench.now < end {
                    bench.good_round(20);
                }
            }
            Self::GoodForTwoMinutes => {
                let end = bench.now + ms(120_000);
                while bench.now < end {
                    bench.good_round(20);
                }
            }
            Self::DeadForLong => {
                let end = bench.now + ms(300_000);
                while bench.now < end {
                    bench.step();
                }
            }
            Self::LossyForAMinute => {
                let end = bench.now + ms(60_000);
                bench.run_lossy_until(|_| false, end);
            }
            Self::LifeAndNoAnswers => {
                let end = bench.now + ms(1500);
                while bench.now < end {
                    bench.now += ms(50);
                    bench.health.heard(bench.now);
                    bench.poll();
                }
            }
            Self::Reconfigured => bench.health.reconfigure(
                MonitorConfig { interval: ms(500), ..MonitorConfig::default() },
                targets(&["8.8.8.8"]),
                bench.now,
            ),
        }
    }
}

#[test]
fn every_input_in_every_state_leads_where_the_diagram_says() {
    use Input::*;
    use State::*;
    for input in Input::ALL {
        // In the order of State::ALL: Unknown, Up, Degraded, Suspect, Down, LongDown, Held.
        let expected = match input {
            GoodRound | QuorumOnly => [Up, Up, Degraded, Up, Down, LongDown, Held],
            BadRound | Silence => [Unknown, Suspect, Suspect, Suspect, Down, LongDown, Held],
            BadRounds => [Down, Down, Down, Down, Down, LongDown, Held],
            SendingFails | Reconfigured => State::ALL,
            PathLost => [Down, Down, Down, Down, Down, LongDown, Down],
            PathLostAndBack => [Unknown, Down, Down, Down, Down, LongDown, Down],
            OthersGone => [Unknown, Up, Degraded, Suspect, Down, LongDown, Up],
            OthersGoneAndGoodRound => [Up, Up, Degraded, Up, Up, Up, Up],
            GoodForUpAfter => [Up, Up, Degraded, Up, Up, Up, Held],
            GoodForTwoMinutes => [Up; 7],
            DeadForLong => [LongDown; 7],
            LossyForAMinute => [Degraded, Degraded, Degraded, Degraded, Held, Held, Held],
            LifeAndNoAnswers => [Down, Suspect, Suspect, Suspect, Down, LongDown, Held],
        };
        for (state, expected) in State::ALL.into_iter().zip(expected) {
            let mut bench = Bench::in_state(state);
            input.apply(&mut bench);
            assert_eq!(bench.state(), expected, "{state} and {input:?}: {}", bench.reason());
        }
    }
}
