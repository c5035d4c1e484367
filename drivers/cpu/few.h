// What: products of quantised weights with one to four rows: the weights go from memory through registers once.
// Invariant: the row contract (linear.cc).
// Interface: tile_few.
#pragma once

#include "activations.h"
#include "codes.h"

namespace llmos {
namespace LLMOS_ISA {

constexpr int64_t kFewRows = 4;

// One block of one activation row against one tile: y += the block's terms, in the order of the row contract.
template <int F>
inline F8 block_terms(const B32 u[8], const F8 scale[2], F8 minimum, const ActBlock& x, F8 y) {
  F8 sx = set1(x.scale);
  if constexpr (F == kQ8) {
    Acc8 acc = acc8_start(repeat4(x.whole));
    for (int j = 0; j < 8; ++j) acc = acc8_dot(acc, u[j], repeat4(x.q + 4 * j));
    return fma(acc8_sum(acc), mul(scale[0], sx), y);
  } else if constexpr (F == kQ6) {
    B32 whole = repeat4(x.whole), first = repeat4(x.first_half);
    Acc a = acc_offset(first, code_offset(F)), b = acc_offset(sub_i16(whole, first), code_offset(F));
    for (int j = 0; j < 4; ++j) {
      a = acc_dot(a, u[j], repeat4(x.q + 4 * j));
      b = acc_dot(b, u[j + 4], repeat4(x.q + 16 + 4 * j));
    }
    y = fma(acc_sum(a), mul(scale[0], sx), y);
    return fma(acc_sum(b), mul(scale[1], sx), y);
  } else {
    // Five-bit codes need an offset to stay in 16 bits; where the format has a minimum it is given back here.
    constexpr bool given_back = bits(F) == 5 && has_minimum(F);
    constexpr int offset = given_back ? 16 : code_offset(F);
    Acc acc = offset ? acc_offset(repeat4(x.whole), offset) : acc_zero();
    for (int j = 0; j < 8; ++j) acc = acc_dot(acc, u[j], repeat4(x.q + 4 * j));
    F8 dot = acc_sum(acc);
    if constexpr (given_back) dot = add(dot, set1(16.0f * static_cast<float>(x.whole[0] + x.whole[1])));
    y = fma(dot, mul(scale[0], sx), y);
    if constexpr (has_minimum(F)) y = fma(minimum, set1(x.sum), y);
    return y;
  }
}

// out[r * stride .. + 8]. Inlined it would share its registers with what calls it, and spill.
template <int F, int R>
__attribute__((noinline)) void tile_few(const uint8_t* w, int64_t blocks, bool centred, const ActBlock* x, float* out, int64_t stride) {
  F8 y[R], z[R];  // z: the terms of the centres
  for (int r = 0; r < R; ++r) y[r] = z[r] = zero();
  for (int64_t b = 0; b < blocks; ++b) {
    const auto p = place(F, w, b);
    B32 u[8];
    F8 scale[2], minimum;
    prefetch(p.codes + 4096);
    prefetch(p.codes + 4096 + 64);
    prefetch(p.codes + 4096 + 128);
    unpack<F>(p.codes, u);
    load_scales<F>(p, scale, &minimum);
    for (int r = 0; r < R; ++r) y[r] = block_terms<F>(u, scale, minimum, x[r * blocks + b], y[r]);
    if (!centred) continue;
    const F8 total = weight_sums<F>(u, scale);
    for (int r = 0; r < R; ++r) z[r] = fma(total, set1(x[r * blocks + b].centre), z[r]);
  }
  for (int r = 0; r < R; ++r) store(out + r * stride, centred ? add(y[r], z[r]) : y[r]);
}

}  // namespace LLMOS_ISA
}  // namespace llmos
