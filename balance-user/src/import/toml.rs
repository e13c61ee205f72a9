//! From NIB's data to TOML: every value as a key of ours, or as a comment that says why there is none.

use std::fmt;
use std::time::Duration;

use super::parse::{Isp, Nib, Ping};
use crate::config::{Mode, MonitorConfig};

const HEAD: &str = "\
# Made of a config of Net::ISP::Balance by `balance-user import`. docs/configuration.md has every key,
# docs/migrating.md what was there and where it is here: also the folders firewall, routes, pre-run and post-run,
# and lsm's scripts (up.d, down.d, long_down.d), which were never in that file.
";

impl fmt::Display for Nib<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        if let Some(mode) = self.mode {
            let word = match mode {
                Mode::Balanced => "balanced",
                Mode::Failover => "failover",
            };
            writeln!(f, "\nmode = \"{word}\"")?;
        }
        for isp in &self.isps {
            isp.fmt(f)?;
        }
        for (name, device) in &self.lans {
            writeln!(f, "\n[[lan]]\nname = \"{name}\"\ndevice = \"{device}\"")?;
        }
        self.monitor(f)?;
        self.mail(f)?;
        self.firewall(f)
    }
}

impl fmt::Display for Isp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, device, ping, weight, gateway } = self;
        writeln!(f, "\n[[isp]]\nname = \"{name}\"\ndevice = \"{device}\"")?;
        if *weight == 0 {
            writeln!(f, "# weight 0: no flows as long as another ISP works\ntier = 2")?;
        } else {
            writeln!(f, "weight = {weight}")?;
        }
        if let Some(gateway) = gateway {
            writeln!(f, "gateway = \"{gateway}\"")?;
        }
        match ping {
            Ping::Address(address) => {
                writeln!(f, "targets = [\"{address}\"]  # more are better: one alone may fail by itself")
            }
            Ping::Host(host) => unnamed(f, host),
            Ping::Default => unnamed(f, "www.google.ca"),
        }
    }
}

/// A host that was pinged by its name.
fn unnamed(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    writeln!(f, "# targets: {host} was pinged; here they are addresses, and without any some well-known ones")
}

/// A line with a duration, and what stands behind it.
fn duration(f: &mut fmt::Formatter<'_>, key: &str, value: Duration, behind: &str) -> fmt::Result {
    writeln!(f, "{key} = \"{}\"{behind}", humantime::format_duration(value))
}

impl Nib<'_> {
    /// What was said about when an ISP counts as down and as up.
    fn monitor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsm = &self.lsm;
        let limits = lsm.max_loss.or(lsm.min_loss).or(lsm.long_down);
        if lsm.interval_ms.or(lsm.timeout_ms).or(lsm.lost).or(self.up_after_ms).or(limits).is_some() {
            writeln!(f, "\n[monitor]")?;
        }
        let default = MonitorConfig::default();
        if let Some(interval) = lsm.interval_ms {
            let interval = Duration::from_millis(interval.into());
            duration(f, "interval", interval, "")?;
            if interval < default.suspect_interval {
                duration(f, "suspect_interval", interval, "")?;
            }
        }
        if let Some(timeout) = lsm.timeout_ms {
            duration(f, "timeout", Duration::from_millis(timeout.into()), "")?;
        }
        if let Some(lost) = lsm.lost {
            writeln!(
                f,
                "down_after = {lost}  # after a first loss, rounds are suspect_interval apart, not interval"
            )?;
        }
        if let Some(up_after) = self.up_after_ms {
            let up_after = Duration::from_millis(up_after.into());
            duration(f, "up_after", up_after, "  # min_successive_pkts_rcvd times interval_ms")?;
            if up_after > default.up_after_max {
                duration(f, "up_after_max", up_after, "")?;
            }
        }
        self.limits(f)?;
        if !lsm.notes.is_empty() {
            writeln!(f)?;
        }
        lsm.notes.iter().try_for_each(|(name, (value, note))| writeln!(f, "# {name}={value}: {note}"))
    }

    /// Who gets mail, by this machine's own mail server, as NIB sends it.
    fn mail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = &self.lsm.warn_email;
        // What can be an address needs no other quoting in TOML than `{:?}` gives it.
        if to.is_empty() { Ok(()) } else { writeln!(f, "\n[mail]\nto = {to:?}") }
    }

    /// What was said about loss, and about being down for long.
    fn limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsm = &self.lsm;
        if let Some(loss) = lsm.max_loss {
            writeln!(
                f,
                "degraded_loss = \"{loss}%\"  # max_packet_loss: degraded, which is still used, not down"
            )?;
        }
        let upper = lsm.max_loss.or_else(|| {
            let default = MonitorConfig::default().limits.loss?;
            Some(u32::from(default.enter) / 10)
        });
        // There is no dead band without a difference.
        let highest = upper.map_or(0, |upper| upper.saturating_sub(1));
        if let Some(loss) = lsm.min_loss.map(|loss| loss.min(highest)).filter(|loss| *loss > 0) {
            writeln!(f, "restored_loss = \"{loss}%\"  # min_packet_loss")?;
        }
        match lsm.long_down {
            Some(seconds) => duration(f, "long_down_after", Duration::from_secs(seconds.into()), ""),
            None => Ok(()),
        }
    }

    /// What NIB always does. What its folder `firewall` lets in is not in its config.
    fn firewall(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[firewall]\nenabled = true")?;
        writeln!(
            f,
            "# allow = [\"tcp/22\"]  # what of this machine is open to the outside; nothing else tells it"
        )?;
        if self.lans.is_empty() {
            return Ok(());
        }
        if self.groups.is_empty() {
            return writeln!(f, "groups = [[\":lan\", \":isp\"]]");
        }
        let has_lan = |group: &&Vec<&str>| {
            group.iter().any(|name| *name == ":lan" || self.lans.iter().any(|(lan, _)| lan == name))
        };
        let (groups, useless): (Vec<_>, Vec<_>) = self.groups.iter().partition(has_lan);
        for group in useless {
            writeln!(f, "# forwarding_group={}: ISPs do not open connections to anybody", group.join(" "))?;
        }
        // Names need no other quoting in TOML than `{:?}` gives them.
        writeln!(f, "groups = {groups:?}")
    }
}
