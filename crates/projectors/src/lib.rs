//! Symmetric projectors, orthonormalisation and Haar sampling for orthogonal convolutions.
