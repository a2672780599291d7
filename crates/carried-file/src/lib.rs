//! Small files that somebody carries between two machines: as they are, or as a series of QR codes.
//!
//! [`Series`] is the text of the codes and knows nothing of pictures; [`CarriedOutput`] and [`read`] are the two ends as both
//! command lines have them. What a file says, and whether it is to be believed, is its reader's to judge: the digests in a
//! series find what was lost or misread on the way, and no forgery.
#![forbid(unsafe_code)]

mod input;
mod output;
mod picture;
mod series;

pub use self::input::read;
pub use self::output::{CarriedOutput, Prepared, Ready};
pub use self::series::{Content, PARTS_MAX, Series, SeriesError, is_series, lines};
