// What: products of bf16 and f32 weights with f32 rows.
// Invariant: the row contract (linear.cc): a block's 32 products are summed by themselves, in order, then added.
// Interface: panel_float.
#pragma once

#include "formats.h"
#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

// out[R][C * 8]; w points to C tiles.
template <int F, int R, int C>
void panel_float(const uint8_t* const* w, int64_t blocks, const float* x, float* out) {
  for (int i = 0; i < R * C; ++i) store(out + 8 * i, zero());
  for (int64_t b = 0; b < blocks; ++b) {
    F8 part[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) part[r][c] = zero();
    for (int i = 0; i < 32; ++i) {
      F8 v[C];
      for (int c = 0; c < C; ++c) {
        const uint8_t* p = w[c] + b * block_bytes(F);
        v[c] = F == kBF16 ? load_bf16(p + 16 * i) : load(reinterpret_cast<const float*>(p) + 8 * i);
      }
      for (int r = 0; r < R; ++r) {
        F8 one = set1(x[(r * blocks + b) * 32 + i]);
        for (int c = 0; c < C; ++c) part[r][c] = fma(v[c], one, part[r][c]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        float* y = out + (r * C + c) * 8;
        store(y, add(load(y), part[r][c]));
      }
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
