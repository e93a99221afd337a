//! Block convolution algebra: orthogonal convolution kernels, their assembly, spectra and theorems.
