//! Prints what steering a packet costs, in nanoseconds.

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn main() -> anyhow::Result<()> {
    println!("{:<14} {:>6} {:>6}", "packet", "known", "new");
    for cost in balance_lab::figures::steering_cost()? {
        println!("{:<14} {:>6} {:>6}", cost.packet, cost.known, cost.new);
        anyhow::ensure!(cost.known > 0 && cost.new > 0, "the kernel measures nothing");
    }
    Ok(())
}
