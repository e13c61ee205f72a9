//! Prints what steering a packet costs.

fn main() -> anyhow::Result<()> {
    for figure in balance_lab::figures::steering_cost()? {
        println!("{figure:?}");
    }
    Ok(())
}
