// What: one packed block (formats.h) in registers: its codes a byte each, its scales and minima as floats.
// Invariant: the same for every kernel that reads quantised weights.
// Interface: Narrow, Wide; unpack, load_scales, weight_sums.
#pragma once

#include "formats.h"
#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

// One block of one tile in registers, or of two tiles side by side: what is read of it, and the constants of that width.
struct Narrow {
  using Bytes = B32;
  using Floats = F8;
  static F8 set1(float f) { return LLMOS_ISA::set1(f); }
  static B32 repeat4(const void* p) { return LLMOS_ISA::repeat4(p); }
  static Acc acc_zero() { return LLMOS_ISA::acc_zero(); }

  Place<const uint8_t> p;

  B32 codes(int i) const { return load_bytes(p.codes + 32 * i); }
  F8 half_scales(int i) const { return load_f16(p.scales + 16 * i); }
  F8 half_tops(int i) const { return load_f16(p.tops + 16 * i); }
  F8 signed_scales(int i) const { return load_signed(p.scales + 8 * i); }
  F8 unsigned_scales(int i) const { return load_unsigned(p.scales + 8 * i); }
  void prefetch_ahead(int64_t bytes) const {
    for (int i = 0; i < 192; i += 64) prefetch(p.codes + bytes + i);
  }
};

#if LLMOS_VNNI
struct Wide {
  using Bytes = B64;
  using Floats = F16;
  static F16 set1(float f) { return _mm512_set1_ps(f); }
  static B64 repeat4(const void* p) { return _mm512_set1_epi32(static_cast<int>(load_u32(p))); }
  static Acc16 acc_zero() { return {_mm512_setzero_si512()}; }

  Narrow a, b;

  B64 codes(int i) const { return join(a.codes(i), b.codes(i)); }
  F16 half_scales(int i) const { return join(a.half_scales(i), b.half_scales(i)); }
  F16 half_tops(int i) const { return join(a.half_tops(i), b.half_tops(i)); }
  F16 signed_scales(int i) const { return join(a.signed_scales(i), b.signed_scales(i)); }
  F16 unsigned_scales(int i) const { return join(a.unsigned_scales(i), b.unsigned_scales(i)); }
};
#endif

// Codes to one byte each: u[j] is k-group j of each tile's eight rows.
template <int F, class Block>
LLMOS_INLINE void unpack(const Block& p, typename Block::Bytes u[8]) {
  using B = typename Block::Bytes;
  if constexpr (F == kQ8) {
    for (int j = 0; j < 8; ++j) u[j] = p.codes(j);
    return;
  }
  for (int j = 0; j < 4; ++j) {
    B v = p.codes(j);
    u[j] = mask_bytes(v, 15);
    u[j + 4] = mask_bytes(shift_right<4>(v), 15);
  }
  if constexpr (bits(F) == 5) {
    B h = p.codes(4);
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
      B h = p.codes(4 + half);
      B* g = u + 4 * half;
      g[0] = either(g[0], mask_bytes(shift_left<4>(h), 48));
      g[1] = either(g[1], mask_bytes(shift_left<2>(h), 48));
      g[2] = either(g[2], mask_bytes(h, 48));
      g[3] = either(g[3], mask_bytes(shift_right<2>(h), 48));
    }
  }
}

template <int F, class Block>
LLMOS_INLINE void load_scales(const Block& p, typename Block::Floats scale[2], typename Block::Floats* minimum) {
  scale[1] = *minimum = Block::set1(0.0f);
  if constexpr (F == kQ6) {
    const auto top = p.half_tops(0);
    scale[0] = mul(top, p.signed_scales(0));
    scale[1] = mul(top, p.signed_scales(1));
  } else if constexpr (has_super(F)) {
    scale[0] = mul(p.half_tops(0), p.unsigned_scales(0));
    *minimum = mul(p.half_tops(1), p.unsigned_scales(1));
  } else {
    scale[0] = p.half_scales(0);
    if constexpr (has_minimum(F)) *minimum = p.half_scales(1);
  }
}

// scale * (sum of code - offset) over the block's 32 inputs: what the centre of an activation block is multiplied by.
template <int F, class Block>
LLMOS_INLINE typename Block::Floats weight_sums(const typename Block::Bytes u[8], const typename Block::Floats scale[2]) {
  if constexpr (F == kQ6) {
    const auto middle = Block::set1(16.0f * static_cast<float>(code_offset(F)));
    return fma(sub(sum_codes(u + 4, 4), middle), scale[1], mul(sub(sum_codes(u, 4), middle), scale[0]));
  } else if constexpr (F == kQ8) {
    return mul(sum_signed(u, 8), scale[0]);
  } else {
    return mul(sub(sum_codes(u, 8), Block::set1(32.0f * static_cast<float>(code_offset(F)))), scale[0]);
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
