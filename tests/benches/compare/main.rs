//! Sealift against what people use in its place, on the same files in one run: the runs of both take turns, the figures are of
//! whole processes, and each row says the bar that it has to meet. Fetches nothing; what is missing fails.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed step ends the measurement; its figures go to stdout"
)]

mod contest;
mod cost;
mod images;
mod options;
mod report;
mod rows;
mod stage;

use clap::Parser as _;

use crate::options::Options;
use crate::report::Report;
use crate::stage::Stage;

#[tokio::main]
async fn main() {
    // `cargo test` runs benches once to see that they work; this one takes minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::parse();
    let stage = Stage::set();
    let mut report = Report::new(&options);
    for row in options.rows() {
        for place in row.places(&options) {
            let directory = stage.directory(place);
            for contest in Box::pin(row.contests(&stage, directory.path(), &options)).await {
                report.add(row, place, &contest.fight(options.runs));
            }
        }
    }
    report.end();
}
