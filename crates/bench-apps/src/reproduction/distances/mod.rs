//! Table 4: cells that train generators and critics.
//!
//! Definition. An experiment with a `[wasserstein]` table has three kinds of cells ([`plan`]): a *generator* for each data set, trained
//! once; the *anchors*, critics on distributions whose distance is known; and *critics* between the generator's images and the
//! data, one for each method, nonlinearity and seed. The folder of a cell is `DIR/distances/BUDGET/NAME`, with `cell.json` and
//! `result.json` as for other cells.
//!
//! Guarantee: all critics of a data set under one budget see one frozen generator, whose hash is in their results; whoever needs it
//! first trains it, and the others wait.
//!
//! Not here: training and estimates ([`crate::wasserstein`]).

pub mod plan;
pub mod published;
pub mod result;
pub mod rows;
pub mod run;
pub mod spec;

pub use plan::DistancePlan;
pub use result::DistanceResult;
pub use rows::DistanceSection;
pub use spec::{DistanceBudget, Distances};
