//! What can be chosen about the measurement.

use crate::rows::Row;
use crate::stage::Place;

/// Compares Sealift with what people use in its place.
#[derive(Debug, clap::Parser)]
pub(crate) struct Options {
    /// Which rows; all by default.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Row>,
    /// How often each side runs.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the files lie.
    #[arg(long, value_name = "PLACE", value_delimiter = ',', default_values = ["memory", "disk"])]
    pub(crate) places: Vec<Place>,
    /// How large the layers of `pack` and `open` are, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) layer_mib: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    /// Cargo adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn rows(&self) -> Vec<Row> {
        if self.rows.is_empty() { Row::all() } else { self.rows.clone() }
    }
}
