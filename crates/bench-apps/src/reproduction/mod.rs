//! The paper's tables and figures, from a list of cells to a page.
//!
//! Definition. A *cell* is a data set, a network, a method and a seed under a budget. An experiment is a set of cells, as a TOML
//! file ([`spec`]); those of Table 4 are of kinds of their own ([`distances`]). Each cell has a folder ([`cell`]), in which its plan is written before and its result after the work
//! ([`run`]); everything else, the queue ([`queue`]), a batch system ([`slurm`]) and the write-up ([`collect`]), looks at
//! these files alone.
//!
//! Guarantee: a result is there whole or not at all, and a cell that has one for its plan is not run again. Any number of
//! processes, on any machines that share the folder, may work at once: a cell belongs to the one that holds its lock. Cells
//! of different budgets never share a row of a table.
//!
//! Not here: flags (`cli`), the page ([`crate::report`]).

pub mod cell;
pub mod collect;
pub mod distances;
pub mod evidence;
pub mod published;
pub mod queue;
pub mod run;
pub mod slurm;
pub mod spec;
