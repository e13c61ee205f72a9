//! `doctor`: what is wrong with this machine, and what to do about it.

mod gather;

use anstyle::{AnsiColor, Style};
use anyhow::Context;

use super::args::Doctor;
use super::report::wrapped;
use super::{output, runtime};
use crate::doctor::{Finding, Severity, diagnose};

/// So wide is the text where there is no terminal.
const WIDTH: usize = 80;

/// Returns the exit code: 1 if there is a problem.
pub(super) fn doctor(instance: &str, arguments: &Doctor) -> anyhow::Result<u8> {
    let facts = runtime().context("cannot start")?.block_on(gather::facts(instance, &arguments.config));
    let findings = diagnose(&facts);
    let text = if arguments.json {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        render(&findings, output::width().unwrap_or(WIDTH))
    };
    output::print_styled(&text).context("cannot print")?;
    let is_bad = findings.iter().any(|finding| finding.severity == Severity::Problem);
    Ok(u8::from(is_bad))
}

/// Each finding with what to do below it, in lines that are no longer than that, but for commands, which are not broken.
fn render(findings: &[Finding], width: usize) -> String {
    let lines = findings.iter().flat_map(|finding| {
        let (style, name) = match finding.severity {
            Severity::Problem => (AnsiColor::Red.on_default().bold(), "problem"),
            Severity::Warning => (AnsiColor::Yellow.on_default(), "warning"),
            Severity::Note => (Style::new().dimmed(), "note   "),
        };
        let head = format!("{name}  {}: ", finding.about);
        let words: Vec<String> = finding.what.split_whitespace().map(str::to_owned).collect();
        let mut lines = wrapped(&head, &words, width);
        if let Some(first) = lines.first_mut() {
            *first = first.replacen(name, &format!("{style}{name}{style:#}"), 1);
        }
        lines.extend(finding.fix.iter().map(|fix| format!("         -> {fix}")));
        lines
    });
    let count = |severity, name| match findings.iter().filter(|finding| finding.severity == severity).count()
    {
        1 => format!("1 {name}"),
        count => format!("{count} {name}s"),
    };
    let sum = if findings.iter().all(|finding| finding.severity == Severity::Note) {
        "nothing is wrong".to_owned()
    } else {
        [count(Severity::Problem, "problem"), count(Severity::Warning, "warning")].join(", ")
    };
    lines.chain([sum]).flat_map(|line| [line, "\n".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn each_finding_is_told_with_its_remedy_in_eighty_columns() {
        let finding = |severity, what: &str, fix: Option<&str>| Finding {
            severity,
            about: "sysctl",
            what: what.to_owned(),
            fix: fix.map(str::to_owned),
        };
        let findings = [
            finding(
                Severity::Problem,
                "eth0 drops answers that come in by an ISP which the main table would not choose",
                Some("sysctl -w net/ipv4/conf/eth0/rp_filter=2"),
            ),
            finding(Severity::Note, "all else is well", None),
        ];
        let expected = "\
problem  sysctl: eth0 drops answers that come in by an ISP which the main table
                 would not choose
         -> sysctl -w net/ipv4/conf/eth0/rp_filter=2
note     sysctl: all else is well
1 problem, 0 warnings
";
        assert_eq!(strip_str(&render(&findings, 80)).to_string(), expected);
        assert_eq!(render(&[], 80), "nothing is wrong\n");
    }
}
