//! The boilerplate of a custom operation of candle's, in one macro.

use candle_core::{CpuStorage, Layout};

/// What candle hands a custom operation of an argument.
pub(crate) type Input<'a> = (&'a CpuStorage, &'a Layout);

/// Makes a type a custom operation on the CPU of one, two or three arguments, all in f32 or all in f64. It has
/// `forward<T>(&self, [Input; N]) -> Result<(CpuStorage, Shape)>` and
/// `backward<T>(&self, [&Tensor; N], gradient of the result) -> Result<[Tensor; N]>`.
macro_rules! cpu_op {
    ($op:ty, $name:literal, 1) => {
        cpu_op!($op, $name, CustomOp1, (s1 l1 x1 Option));
    };
    ($op:ty, $name:literal, 2) => {
        cpu_op!($op, $name, CustomOp2, (s1 l1 x1 Option) (s2 l2 x2 Option));
    };
    ($op:ty, $name:literal, 3) => {
        cpu_op!($op, $name, CustomOp3, (s1 l1 x1 Option) (s2 l2 x2 Option) (s3 l3 x3 Option));
    };
    ($op:ty, $name:literal, $custom:ident, $(($s:ident $l:ident $x:ident $option:ident))+) => {
        impl candle_core::$custom for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                $($s: &candle_core::CpuStorage, $l: &candle_core::Layout,)+
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                let inputs = [$(($s, $l)),+];
                Ok(match inputs[0].0 {
                    candle_core::CpuStorage::F64(_) => self.forward::<f64>(inputs)?,
                    _ => self.forward::<f32>(inputs)?,
                })
            }

            #[allow(unused_parens, reason = "one argument makes no tuple")]
            fn bwd(
                &self,
                $($x: &candle_core::Tensor,)+
                _: &candle_core::Tensor,
                gradient: &candle_core::Tensor,
            ) -> candle_core::Result<($($option<candle_core::Tensor>),+)> {
                let inputs = [$($x),+];
                let [$($x),+] = match inputs[0].dtype() {
                    candle_core::DType::F64 => self.backward::<f64>(inputs, gradient)?,
                    _ => self.backward::<f32>(inputs, gradient)?,
                };
                Ok(($($option::Some($x)),+))
            }
        }
    };
}

pub(crate) use cpu_op;
