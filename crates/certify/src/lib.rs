//! Margin certificates that hold in floating point, and attacks that try to break them.
