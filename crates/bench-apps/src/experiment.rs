//! A network, trained on images and evaluated.
//!
//! The pieces are [`build`] (what a configuration means in the libraries' types), [`training`] (a run directory brought
//! forward, resumable to the bit) and [`evaluation`] (clean, certified and attacked accuracy).
//!
//! Not here: flags and the terminal's tables (`cli`).

pub mod build;
pub mod evaluation;
pub mod training;
