//! Reports: tables, charts and pages.
//!
//! A report shows results and computes none. Every table is a [`table::Table`], which has three forms; every page is one
//! HTML document.
//!
//! Errors: [`Error::Draw`](crate::Error::Draw).

mod accuracy;
mod chart;
pub mod distance_page;
mod distances;
mod document;
mod evidence;
mod layers;
mod nearest;
mod page;
pub mod table;

pub use page::{markdown, page, terminal};
