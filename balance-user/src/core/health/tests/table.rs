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
}

impl Input {
    const ALL: [Self; 12] = [
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
    for state in [Unknown, Up, Suspect, Down] {
        for input in Input::ALL {
            let expected = match (state, input) {
                (Unknown, PathLostAndBack) => Unknown,
                (_, PathLost | PathLostAndBack | BadRounds) | (Down, GoodRound | QuorumOnly) => Down,
                (_, OthersGoneAndGoodRound | GoodForUpAfter | GoodRound | QuorumOnly) => Up,
                (Up, BadRound | Silence) => Suspect,
                (_, BadRound | Silence | OthersGone | Reconfigured | SendingFails) => state,
            };
            let mut bench = Bench::in_state(state);
            input.apply(&mut bench);
            assert_eq!(bench.state(), expected, "{state} and {input:?}: {}", bench.reason());
        }
    }
}
