//! Networks as data: what a checkpoint stores and a configuration names.
//!
//! A [`NetworkSpec`] says which layers stand in which order and by which [method](ConvMethod) each weight is constrained; it holds no
//! numbers. The paper's networks are functions that return one. Their numbers of parameters, biases included; RKO, OSSN, SVCM,
//! RK-L2NE and unconstrained networks all have as many, and BCOP-fixed trains the last column of BCOP's only:
//!
//! | network | input | BCOP | others | trained with fixed kernels |
//! |---|---|---|---|---|
//! | Small | 1 x 28 x 28 | 171,014 | 166,406 | 157,958 |
//! | Small | 3 x 32 x 32 | 219,014 | 214,918 | 205,958 |
//! | Large | 1 x 28 x 28 | 2,145,482 | 1,974,762 | 1,874,122 |
//! | Large | 3 x 32 x 32 | 2,637,002 | 2,466,858 | 2,365,642 |
//! | FC-3 | 1 x 28 x 28 | 2,913,290 | 2,913,290 | |
//! | FC-3 | 3 x 32 x 32 | 5,256,202 | 5,256,202 | |
//! | Critic | 3 x 64 x 64 | 4,150,209 | 2,764,737 | 9,153 |
//! | Critic | 3 x 32 x 32 | 4,144,065 | 2,758,593 | 3,009 |

mod module_kind;

use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, LinearMethod};
use crate::shape::ImageShape;
pub use module_kind::ModuleKind;

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LayerSpec {
    /// Invertible downsampling by `stride`, then a cyclic convolution of kernel size `kernel_size / stride`.
    Conv {
        /// Output channels.
        c_out: usize,
        /// Kernel size before downsampling.
        kernel_size: usize,
        /// Downsampling factor.
        stride: usize,
        /// How its weight is constrained.
        method: ConvMethod,
    },
    /// A layer in place of such a convolution that is no weight of its kernel's size.
    Module {
        /// Output channels.
        c_out: usize,
        /// Kernel size before downsampling.
        kernel_size: usize,
        /// Downsampling factor.
        stride: usize,
        /// Its family.
        kind: ModuleKind,
    },
    /// A dense layer.
    Linear {
        /// Output features.
        out_features: usize,
        /// How its weight is constrained.
        method: LinearMethod,
    },
    /// Image to vector.
    Flatten,
    /// A nonlinearity, stored as itself.
    #[serde(untagged)]
    Activation(Activation),
}

/// A network: its input and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Shape of an image.
    pub input: ImageShape,
    /// Layers, first to last.
    pub layers: Vec<LayerSpec>,
}

/// The methods of a whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// Of every convolution.
    pub conv: ConvMethod,
    /// Of every dense layer.
    pub linear: LinearMethod,
}

impl Methods {
    /// BCOP convolutions and Björck dense layers: the paper's method.
    pub const BCOP: Self = Self::convolutions(ConvMethod::Bcop);
    /// BCOP convolutions that stay as they are drawn, Björck dense layers.
    pub const BCOP_FIXED: Self = Self::convolutions(ConvMethod::BcopFixed);
    /// RKO convolutions, Björck dense layers.
    pub const RKO: Self = Self::convolutions(ConvMethod::Rko);
    /// OSSN convolutions, Björck dense layers.
    pub const OSSN: Self = Self::convolutions(ConvMethod::Ossn);
    /// SVCM convolutions, Björck dense layers.
    pub const SVCM: Self = Self::convolutions(ConvMethod::Svcm);
    /// RK-L2NE convolutions, Björck dense layers.
    pub const RK_L2NE: Self = Self::convolutions(ConvMethod::RkL2ne);
    /// No constraint anywhere.
    pub const UNCONSTRAINED: Self =
        Self { conv: ConvMethod::Unconstrained, linear: LinearMethod::Unconstrained };

    /// Convolutions of one kind, Björck dense layers.
    #[must_use]
    pub const fn convolutions(conv: ConvMethod) -> Self {
        Self { conv, linear: LinearMethod::Bjorck }
    }
}

impl NetworkSpec {
    /// The paper's Small: conv 16 k4 s2, conv 32 k4 s2, linear 100, linear `n_classes`, MaxMin between.
    #[must_use]
    pub fn small(input: ImageShape, n_classes: usize, methods: Methods) -> Self {
        Self::from_widths(input, methods, &[(16, 4, 2), (32, 4, 2)], &[100, n_classes])
    }

    /// The paper's Large, all widths but the last times `width` (1 is the paper's): conv 32 k3, conv 32 k4
    /// s2, conv 64 k3, conv 64 k4 s2, linear 512, linear 512, linear `n_classes`, MaxMin between.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when `width` is not positive or makes a width odd or 0.
    pub fn large(
        input: ImageShape,
        n_classes: usize,
        methods: Methods,
        width: f64,
    ) -> Result<Self> {
        let scaled = |n: u32| scaled_width(n, width);
        let (c1, c2, hidden) = (scaled(32)?, scaled(64)?, scaled(512)?);
        let convs = [(c1, 3, 1), (c1, 4, 2), (c2, 3, 1), (c2, 4, 2)];
        Ok(Self::from_widths(input, methods, &convs, &[hidden, hidden, n_classes]))
    }

    /// The paper's FC-3: three dense layers of 1024 features and one of `n_classes`, MaxMin between. Only
    /// `methods.linear` matters.
    #[must_use]
    pub fn fc3(input: ImageShape, n_classes: usize, methods: Methods) -> Self {
        Self::from_widths(input, methods, &[], &[1024, 1024, 1024, n_classes])
    }

    /// The critic of the paper's Wasserstein experiments, all widths times `width` (1 is the paper's): conv 64, 128, 256 and
    /// 512, all k4 s2, then linear 1; MaxMin after every convolution. The paper's input is 64 x 64; the sides of any
    /// other are multiples of 16 from 32 on.
    ///
    /// # Errors
    /// As for [`NetworkSpec::large`].
    pub fn critic(input: ImageShape, methods: Methods, width: f64) -> Result<Self> {
        let conv = |c_out: u32| -> Result<_> { Ok((scaled_width(c_out, width)?, 4, 2)) };
        let convs = [conv(64)?, conv(128)?, conv(256)?, conv(512)?];
        Ok(Self::from_widths(input, methods, &convs, &[1]))
    }

    /// The same network with another nonlinearity wherever it has one.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        for layer in &mut self.layers {
            if let LayerSpec::Activation(present) = layer {
                *present = activation;
            }
        }
        self
    }

    /// The same network with `n` more convolutions, 3 x 3 and of stride 1, after each convolution that downsamples. They have
    /// its width and method, and its activation follows each.
    #[must_use]
    pub fn with_more_convolutions(mut self, n: usize) -> Self {
        let mut layers = Vec::with_capacity(self.layers.len());
        let mut present = self.layers.into_iter().peekable();
        while let Some(layer) = present.next() {
            let more = match layer {
                LayerSpec::Conv { c_out, stride, method, .. } if stride > 1 => {
                    Some(LayerSpec::Conv { c_out, kernel_size: 3, stride: 1, method })
                }
                _ => None,
            };
            layers.push(layer);
            let Some(more) = more else { continue };
            let activation = present.next_if(|next| matches!(next, LayerSpec::Activation(_)));
            layers.extend(activation);
            for _ in 0..n {
                layers.push(more);
                layers.extend(activation);
            }
        }
        self.layers = layers;
        self
    }

    /// The same network with a layer of a family in place of each convolution.
    #[must_use]
    pub fn with_modules(mut self, kind: ModuleKind) -> Self {
        for layer in &mut self.layers {
            if let LayerSpec::Conv { c_out, kernel_size, stride, .. } = *layer {
                *layer = LayerSpec::Module { c_out, kernel_size, stride, kind };
            }
        }
        self
    }

    /// The same network with another method of its last layer.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when the last layer is not dense.
    pub fn with_head(mut self, method: LinearMethod) -> Result<Self> {
        match self.layers.last_mut() {
            Some(LayerSpec::Linear { method: last, .. }) => *last = method,
            last => {
                let value = last.map_or_else(|| "missing".into(), |layer| format!("{layer:?}"));
                let (name, expected) = ("last layer", "a dense layer");
                return Err(Error::InvalidSetting { name, value, expected });
            }
        }
        Ok(self)
    }

    /// Convolutions (c_out, kernel_size, stride), then dense layers, MaxMin after all but the last.
    fn from_widths(
        input: ImageShape,
        methods: Methods,
        convs: &[(usize, usize, usize)],
        linears: &[usize],
    ) -> Self {
        let mut layers = Vec::new();
        for &(c_out, kernel_size, stride) in convs {
            layers.push(LayerSpec::Conv { c_out, kernel_size, stride, method: methods.conv });
            layers.push(LayerSpec::Activation(Activation::MaxMin));
        }
        layers.push(LayerSpec::Flatten);
        for (n, &out_features) in linears.iter().enumerate() {
            if n > 0 {
                layers.push(LayerSpec::Activation(Activation::MaxMin));
            }
            layers.push(LayerSpec::Linear { out_features, method: methods.linear });
        }
        Self { input, layers }
    }
}

fn scaled_width(n: u32, factor: f64) -> Result<usize> {
    let width = f64::from(n) * factor;
    let valid = width.is_finite() && width >= 2.0 && width.fract() == 0.0 && width % 2.0 == 0.0;
    if !valid || width > 1e6 {
        return Err(Error::InvalidSetting {
            name: "width",
            value: factor.to_string(),
            expected: "a positive factor that leaves every width an even whole number",
        });
    }
    // a whole number between 2 and 1e6, as just checked
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(width as usize)
}
