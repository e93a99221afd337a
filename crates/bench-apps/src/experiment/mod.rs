//! Experiments: a network trained on images, evaluated, and written up.
//!
//! The pieces are [`build`] (what a configuration means in the libraries' types), [`training`] (a run directory brought
//! forward, resumable to the bit), [`evaluation`] (clean, certified and attacked accuracy) and [`write_up`] (results and
//! report).
//!
//! Not here: flags and the terminal's tables (`cli`).

pub mod build;
pub mod evaluation;
pub mod training;
pub mod write_up;
