//! Quotas and rates in the report for people.

use super::Isp;
use crate::amount::{Rate, Size};
use crate::config::Direction;

/// A line for each ISP that has a quota, and for each that can be full.
pub(super) fn render(isps: &[Isp]) -> Vec<String> {
    let quotas = isps.iter().filter_map(|isp| {
        let quota = isp.quota.as_ref()?;
        let percent = crate::cli::figures::percent(quota.used as f64 * 100.0 / quota.limit as f64);
        let of = match quota.direction {
            Direction::Both => "",
            Direction::Download => " of download",
            Direction::Upload => " of upload",
        };
        let anew = quota.resets.map(|day| format!(", anew on {day}")).unwrap_or_default();
        let demoted = if quota.demoted { "; new flows go elsewhere" } else { "" };
        let (used, limit) = (Size(quota.used), Size(quota.limit));
        Some(format!("quota: {} has used {used} of {limit}{of} ({percent}){anew}{demoted}", isp.name))
    });
    let rates = isps.iter().filter_map(|isp| {
        let spill = isp.spill_over?;
        let until = format!("; new flows go elsewhere until it is {}", Rate(spill.back));
        let full = if spill.full { until.as_str() } else { "" };
        Some(format!("rate: {} carries {} of {}{full}", isp.name, Rate(spill.rate), Rate(spill.over)))
    });
    quotas.chain(rates).collect()
}

/// It works, but new flows go elsewhere because it carries enough.
pub(super) fn has_enough(isp: &Isp) -> bool {
    isp.quota.as_ref().is_some_and(|quota| quota.demoted) || isp.spill_over.is_some_and(|spill| spill.full)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::super::samples::isp;
    use super::*;
    use crate::core::{QuotaStatus, SpillStatus};

    #[test]
    fn quotas_and_rates_have_a_line_each() {
        let quota = QuotaStatus {
            limit: 50_000_000_000,
            used: 40_120_000_000,
            direction: Direction::Both,
            period: "month".to_owned(),
            resets: Some(date(2026, 12, 1)),
            demoted: false,
        };
        let spill = SpillStatus { rate: 43_100_000, over: 40_000_000, back: 30_000_000, full: true };
        let mut isps = vec![isp("CABLE", "eth0"), isp("LTE", "wwan0")];
        assert_eq!(render(&isps), [""; 0]);
        isps[0].spill_over = Some(spill);
        isps[1].quota = Some(quota.clone());
        assert_eq!(
            render(&isps),
            [
                "quota: LTE has used 40.12 GB of 50 GB (80%), anew on 2026-12-01",
                "rate: CABLE carries 43.1 Mbit/s of 40 Mbit/s; new flows go elsewhere until it is 30 Mbit/s",
            ]
        );
        assert!(has_enough(&isps[0]) && !has_enough(&isps[1]));
        let quota =
            QuotaStatus { used: 51_000_000_000, demoted: true, direction: Direction::Download, ..quota };
        isps = vec![Isp { quota: Some(QuotaStatus { resets: None, ..quota }), ..isp("LTE", "wwan0") }];
        let said = "quota: LTE has used 51 GB of 50 GB of download (102%); new flows go elsewhere";
        assert_eq!(render(&isps), [said]);
        assert!(has_enough(&isps[0]));
    }
}
