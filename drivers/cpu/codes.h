// What: one packed block (formats.h) in registers: its codes a byte each, its scales and minima as floats.
// Invariant: the same for every kernel that reads quantised weights.
// Interface: unpack, load_scales, weight_sums.
#pragma once

#include "formats.h"
#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

// Codes of one block to one byte each: u[j] is k-group j of the tile's eight rows.
template <int F>
inline void unpack(const uint8_t* p, B32 u[8]) {
  if constexpr (F == kQ8) {
    for (int j = 0; j < 8; ++j) u[j] = load_bytes(p + 32 * j);
    return;
  }
  for (int j = 0; j < 4; ++j) {
    B32 v = load_bytes(p + 32 * j);
    u[j] = mask_bytes(v, 15);
    u[j + 4] = mask_bytes(shift_right<4>(v), 15);
  }
  if constexpr (bits(F) == 5) {
    B32 h = load_bytes(p + 128);
    u[0] = either(u[0], mask_bytes(shift_left<4>(h), 16));
    u[1] = either(u[1], mask_bytes(shift_left<3>(h), 16));
    u[2] = either(u[2], mask_bytes(shift_left<2>(h), 16));
    u[3] = either(u[3], mask_bytes(shift_left<1>(h), 16));
    u[4] = either(u[4], mask_bytes(h, 16));
    u[5] = either(u[5], mask_bytes(shift_right<1>(h), 16));
    u[6] = either(u[6], mask_bytes(shift_right<2>(h), 16));
    u[7] = either(u[7], mask_bytes(shift_right<3>(h), 16));
  }
  if constexpr (F == kQ6) {
    for (int half = 0; half < 2; ++half) {
      B32 h = load_bytes(p + 128 + 32 * half);
      B32* g = u + 4 * half;
      g[0] = either(g[0], mask_bytes(shift_left<4>(h), 48));
      g[1] = either(g[1], mask_bytes(shift_left<2>(h), 48));
      g[2] = either(g[2], mask_bytes(h, 48));
      g[3] = either(g[3], mask_bytes(shift_right<2>(h), 48));
    }
  }
}

template <int F>
inline void load_scales(const Place<const uint8_t>& p, F8 scale[2], F8* minimum) {
  scale[1] = *minimum = zero();
  if constexpr (F == kQ6) {
    const F8 top = load_f16(p.tops);
    scale[0] = mul(top, load_signed(p.scales));
    scale[1] = mul(top, load_signed(p.scales + 8));
  } else if constexpr (has_super(F)) {
    scale[0] = mul(load_f16(p.tops), load_unsigned(p.scales));
    *minimum = mul(load_f16(p.tops + 16), load_unsigned(p.scales + 8));
  } else {
    scale[0] = load_f16(p.scales);
    if constexpr (has_minimum(F)) *minimum = load_f16(p.scales + 16);
  }
}

// scale * (sum of code - offset) over the block's 32 inputs: what the centre of an activation block is multiplied by.
template <int F>
inline F8 weight_sums(const B32 u[8], const F8 scale[2]) {
  if constexpr (F == kQ6) {
    const F8 middle = set1(16.0f * static_cast<float>(code_offset(F)));
    return fma(sub(sum_codes(u + 4, 4), middle), scale[1], mul(sub(sum_codes(u, 4), middle), scale[0]));
  } else if constexpr (F == kQ8) {
    return mul(sum_signed(u, 8), scale[0]);
  } else {
    return mul(sub(sum_codes(u, 8), set1(32.0f * static_cast<float>(code_offset(F)))), scale[0]);
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
