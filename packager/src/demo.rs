//! The demo's parts: the child processes it runs, the image it builds, the story it tells.

mod image;
mod process;
mod story;

pub(crate) use process::Demo;
pub(crate) use story::Story;
