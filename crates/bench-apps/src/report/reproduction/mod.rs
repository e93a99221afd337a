//! The paper's tables and figures on one page, as HTML and as Markdown, and its tables on the terminal.
//!
//! Guarantee: each figure of ours stands with the number of seeds, the budget, the images and the device it was made with, and
//! beside the paper's where that has one. What was not run is an empty cell.
//!
//! Not here: which numbers there are ([`crate::reproduction::collect`]).

mod cells;
mod distance_text;
mod distance_words;
mod distances;
mod figures;
mod page;
mod text;

pub use page::page;
pub use text::{markdown, terminal};
