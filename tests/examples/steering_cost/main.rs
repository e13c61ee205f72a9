//! Prints what steering a packet costs, in nanoseconds: of several kinds of packets, and with 0, 10 and 1,000 rules.
//!
//! `cargo run --release -p balance-lab --example steering_cost`, as root, on a machine that does nothing else.

#![expect(clippy::print_stdout, reason = "the figures are what this is for")]

mod rules;

use rules::{Figure, Variant};

fn main() -> anyhow::Result<()> {
    println!("Without rules, medians:");
    println!("{:<26} {:>12} {:>12}", "packet", "known", "new");
    for cost in balance_lab::figures::steering_cost()? {
        println!("{:<26} {:>12} {:>12}", cost.packet, cost.known, cost.new);
        anyhow::ensure!(cost.known > 0 && cost.new > 0, "the kernel measures nothing");
    }
    println!("\nTCP with rules, least/median of {} rounds; 10 and 1000 in turns:", rules::ROUNDS);
    print_row(
        "rules",
        &rules::COLUMNS
            .map(|(family, is_new)| format!("{family:?} {}", if is_new { "new" } else { "known" })),
    );
    let figures = rules::measure()?;
    for (variant, row) in &figures {
        print_row(&variant.to_string(), &row.map(|Figure { least, median }| format!("{least}/{median}")));
    }
    for matching in [true, false] {
        let of = |count| figures.get(&Variant { count, matching });
        let (Some(few), Some(many)) = (of(10), of(1000)) else { continue };
        let mut ratios = few.iter().zip(many).map(|(few, many)| {
            let ratio = |few: u32, many: u32| f64::from(many) / f64::from(few.max(1));
            format!("{:.2}/{:.2}", ratio(few.least, many.least), ratio(few.median, many.median))
        });
        let ratios = [(); 4].map(|()| ratios.next().unwrap_or_default());
        print_row(if matching { "1000 to 10, the last" } else { "1000 to 10, none" }, &ratios);
    }
    Ok(())
}

fn print_row(name: &str, [first, second, third, fourth]: &[String; 4]) {
    println!("{name:<26} {first:>12} {second:>12} {third:>12} {fourth:>12}");
}
