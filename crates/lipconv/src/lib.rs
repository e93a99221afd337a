//! Provably 1-Lipschitz, gradient-norm-preserving convolutional networks on candle.
