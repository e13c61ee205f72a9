//! What the control socket asks of the daemon.

use std::time::Instant;

use balance_common::layout::Forced;
use tokio::sync::oneshot;

use super::{Daemon, Next};
use crate::control::{Force, Request, Response};
use crate::core::Event;

impl Daemon {
    pub(super) fn answer(&mut self, request: Request, asked: oneshot::Sender<Response>) -> Next {
        let now = Instant::now();
        let response = match request {
            Request::Quality => Response::Quality {
                isps: self.core.quality(now),
                acceleration: self.kernel.acceleration(),
                local_traffic: self.kernel.local_traffic(),
                scripts: self.scripts.failures(),
                announcements: self.kernel.failed_announcements(),
            },
            Request::InForce => Response::InForce(self.core.in_force()),
            Request::Tallies => Response::Tallies(self.kernel.tallies()),
            Request::Quit => {
                let _ = asked.send(Response::Done);
                return Next::Quit;
            }
            Request::SetWeight { weight, .. } if !(1..=1000).contains(&weight) => {
                Response::Error { message: format!("weight {weight} is not between 1 and 1000") }
            }
            Request::SetWeight { isp, weight } => self.change(&isp, |isp| Event::SetWeight { isp, weight }),
            Request::Force { isp, to } => {
                let forced = match to {
                    Force::Up => Forced::Up,
                    Force::Down => Forced::Down,
                    Force::Auto => Forced::No,
                };
                self.change(&isp, |isp| Event::Force { isp, forced })
            }
            Request::SetUsed { isp, bytes } => self.set_used(&isp, bytes),
            Request::Flush { isp } => self.flush(isp.as_deref()),
        };
        Next::Answer(response, asked)
    }

    fn change(&mut self, name: &str, event: impl FnOnce(balance_common::IspId) -> Event) -> Response {
        let Some(isp) = self.core.isp_named(name) else { return self.no_such_isp() };
        self.core.handle(event(isp), Instant::now());
        Response::Done
    }

    fn set_used(&mut self, name: &str, bytes: u64) -> Response {
        let has_quota =
            |id| self.core.metered().any(|(isp, config)| isp == id && config.metered.quota.is_some());
        match self.core.isp_named(name) {
            Some(isp) if !has_quota(isp) => {
                Response::Error { message: format!("{name} has no quota in the config") }
            }
            _ => {
                let today = self.ledger.today().date;
                self.change(name, |isp| Event::SetUsed { isp, bytes, today })
            }
        }
    }

    fn flush(&mut self, name: Option<&str>) -> Response {
        let isp = match name.map(|name| self.core.isp_named(name)) {
            Some(None) => return self.no_such_isp(),
            named => named.flatten(),
        };
        match self.kernel.flush(isp) {
            Ok(()) => Response::Done,
            Err(error) => Response::Error { message: error.to_string() },
        }
    }

    fn no_such_isp(&self) -> Response {
        Response::NoSuchIsp { isps: self.core.config().isps.iter().map(|isp| isp.name.clone()).collect() }
    }
}
