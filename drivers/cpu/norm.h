// What: RMS normalisation of one row.
// Invariant: the sum of squares runs in eight lanes in order, whoever calls, so that a fused and a separate norm agree.
// Interface: normalise.
#pragma once

#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

// x * rsqrt(mean(x^2) + eps) * w, k a multiple of 8 or a scalar tail; the sum of squares runs in eight lanes.
inline void normalise(const float* x, const float* w, float eps, int64_t k, float* y) {
  F8 squares = zero();
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) squares = fma(load(x + i), load(x + i), squares);
  float total = sum_lanes(squares);
  for (; i < k; ++i) total += x[i] * x[i];
  float r = 1.0f / __builtin_sqrtf(total / static_cast<float>(k) + eps);
  for (i = 0; i + 8 <= k; i += 8) store(y + i, mul(mul(load(x + i), set1(r)), load(w + i)));
  for (; i < k; ++i) y[i] = (x[i] * r) * w[i];
}

}  // namespace LLMOS_ISA
}  // namespace llmos
