// What: activation rows in the forms that the products read: floats, blocks of 8-bit codes, and panels of four rows.
// Invariant: quantised per block of 32 to round_even(d * 127/max|d|), all zero where max|d| is below 1e-30; d is x, or,
//     centred, x - (max + min) / 2. What comes out of a norm has channels that are large and one-sided; about the middle
//     of its range a block with such a one keeps twice the resolution. A NaN or infinity makes its block's scale NaN, so
//     that no silent number comes of it. A panel holds the same numbers.
// Interface: ActBlock, quantise; Panel, kPanelRows, to_panels.
#pragma once

#include "simd.h"

namespace llmos {
namespace LLMOS_ISA {

// One block of 32 quantised activations of one row.
struct ActBlock {
  int8_t q[32];
  float scale, centre, sum;        // x is about centre + scale * q; sum: of the 32 of these
  int16_t whole[2], first_half[2]; // sums of q over inputs {4j, 4j+1} and {4j+2, 4j+3}: of the block, of its first 16
};
static_assert(sizeof(ActBlock) == 52, "no padding");

inline void quantise(const float* x, int64_t blocks, bool centred, ActBlock* out) {
  for (int64_t b = 0; b < blocks; ++b, x += 32, ++out) {
    F8 v[4];
    for (int i = 0; i < 4; ++i) v[i] = load(x + 8 * i);
    const bool finite = largest(v) <= 3.402823466e38f;
    float centre = 0.0f;
    if (!finite) {
      for (int i = 0; i < 4; ++i) v[i] = zero();
    } else if (centred) {
      const F8 high = max(max(v[0], v[1]), max(v[2], v[3])), low = min(min(v[0], v[1]), min(v[2], v[3]));
      centre = 0.5f * max_lanes(high) - 0.5f * max_lanes(sub(zero(), low));
      for (int i = 0; i < 4; ++i) v[i] = sub(v[i], set1(centre));
    }
    const float top = largest(v), inverse = top >= 1e-30f ? 127.0f / top : 0.0f;
    out->scale = !finite ? __builtin_nanf("") : top >= 1e-30f ? top / 127.0f : 0.0f;
    out->centre = centre;
    for (int i = 0; i < 4; ++i) v[i] = mul(v[i], set1(inverse));
    store_codes(out->q, v);
    pair_sums(out->q, out->whole, out->first_half);
    out->sum = out->scale * static_cast<float>(out->whole[0] + out->whole[1]) + 32.0f * centre;
  }
}

// The same block of four rows, as one stream of memory. What an offset of the weights' codes takes from a sum, -offset
// times the sums of q, is written beside the codes: it would otherwise be computed again for every tile.
constexpr int64_t kPanelRows = 4;

struct Panel {
  int8_t q[8][kPanelRows][4];          // by k-group
  float scale[kPanelRows], centre[kPanelRows], sum[kPanelRows];
  int16_t offset8[kPanelRows][2], offset16[kPanelRows][2], offset32[2][kPanelRows][2];  // 32: of each half
};
static_assert(sizeof(Panel) == 240, "no padding");

// Rows [0, live) of q[live][blocks] as panels, out[b * stride]; the others hold what the last of them does.
inline void to_panels(const ActBlock* q, int64_t live, int64_t blocks, Panel* out, int64_t stride) {
  for (int64_t b = 0; b < blocks; ++b, out += stride) {
    const int8_t* row[kPanelRows];
    int16_t whole[2 * kPanelRows], first[2 * kPanelRows];
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const ActBlock& x = q[(r < live ? r : live - 1) * blocks + b];
      row[r] = x.q;
      out->scale[r] = x.scale;
      out->centre[r] = x.centre;
      out->sum[r] = x.sum;
      memcpy(whole + 2 * r, x.whole, 4);
      memcpy(first + 2 * r, x.first_half, 4);
    }
    interleave_words(row, out->q);
    for (int i = 0; i < 2 * kPanelRows; ++i) {
      out->offset8[i / 2][i % 2] = static_cast<int16_t>(-8 * whole[i]);
      out->offset16[i / 2][i % 2] = static_cast<int16_t>(-16 * whole[i]);
      out->offset32[0][i / 2][i % 2] = static_cast<int16_t>(-32 * first[i]);
      out->offset32[1][i / 2][i % 2] = static_cast<int16_t>(-32 * (whole[i] - first[i]));
    }
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
