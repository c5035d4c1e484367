// What: RMS normalisation as an operation of its own, for models that norm what a layer gives.
// Invariant: a row's result depends on that row alone.
// Interface: rms_norm (see kernels.h for shapes).
#include "norm.h"

#include "kernels.h"
#include "threads.h"

namespace llmos {
namespace LLMOS_ISA {

void rms_norm(const NormArgs& a);

void rms_norm(const NormArgs& a) {
  auto run = [&](int64_t r) {
    float* y = a.y + r * a.d;
    normalise(a.x + r * a.d, a.weight, a.eps, a.d, y);
    if (!a.residual) return;
    const float* other = a.residual + r * a.d;
    for (int64_t i = 0; i < a.d; ++i) y[i] = other[i] + y[i];
  };
  if (a.rows * a.d < 32768) {
    for (int64_t r = 0; r < a.rows; ++r) run(r);
  } else {
    const int64_t step = 8192 / a.d + 1;
    parallel(static_cast<int>((a.rows + step - 1) / step), [&](int i) {
      for (int64_t r = i * step; r < a.rows && r < (i + 1) * step; ++r) run(r);
    });
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
