// What: rows of the token table as floats.
// Invariant: a weight has the value that the products use.
// Interface: embed (see kernels.h for shapes).
#include "codes.h"
#include "kernels.h"

namespace llmos {
namespace LLMOS_ISA {

void embed(const EmbedArgs& a);

namespace {

// Row `lane` of a tile as floats; the same values that the products use.
template <int F>
void dequantise_row(const uint8_t* tile, int64_t k, int lane, float* y) {
  for (int64_t b = 0; b < blocks_of(k); ++b) {
    const auto p = place(F, tile, b);
    const uint8_t* w = p.codes;
    const int64_t n = k - 32 * b < 32 ? k - 32 * b : 32;
    if constexpr (is_float(F)) {
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (F == kF32) {
          y[32 * b + i] = bits_to_float(load_u32(w + 4 * (8 * i + lane)));
        } else {
          uint16_t h;
          memcpy(&h, w + 2 * (8 * i + lane), 2);
          y[32 * b + i] = bf16_to_float(h);
        }
      }
    } else {
      B32 u[8];
      F8 scale[2], minimum;
      float s[2][8], m[8];
      uint8_t codes[256];
      const Narrow block{p};
      unpack<F>(block, u);
      load_scales<F>(block, scale, &minimum);
      store(s[0], scale[0]);
      store(s[1], scale[F == kQ6 ? 1 : 0]);
      store(m, minimum);
      for (int j = 0; j < 8; ++j) store_bytes(codes + 32 * j, u[j]);
      for (int i = 0; i < 32; ++i) {
        uint8_t code = codes[32 * (i / 4) + 4 * lane + i % 4];
        int value = F == kQ8 ? static_cast<int8_t>(code) : code - code_offset(F);
        y[32 * b + i] = s[i / 16][lane] * static_cast<float>(value) + m[lane];
      }
    }
  }
}

void dequantise_row(const Segment& t, int64_t k, int64_t row, float* y) {
  const uint8_t* w = t.tiles + (row / 8) * tile_bytes(t.format, blocks_of(k));
  const int lane = static_cast<int>(row % 8);
  switch (t.format) {
    case kQ4: return dequantise_row<kQ4>(w, k, lane, y);
    case kQ4M: return dequantise_row<kQ4M>(w, k, lane, y);
    case kQ4K: return dequantise_row<kQ4K>(w, k, lane, y);
    case kQ5: return dequantise_row<kQ5>(w, k, lane, y);
    case kQ5M: return dequantise_row<kQ5M>(w, k, lane, y);
    case kQ5K: return dequantise_row<kQ5K>(w, k, lane, y);
    case kQ6: return dequantise_row<kQ6>(w, k, lane, y);
    case kQ8: return dequantise_row<kQ8>(w, k, lane, y);
    case kBF16: return dequantise_row<kBF16>(w, k, lane, y);
    case kF32: return dequantise_row<kF32>(w, k, lane, y);
  }
}

}  // namespace

void embed(const EmbedArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    float* y = a.y + r * a.k;
    dequantise_row(a.table, a.k, a.tokens[r], y);
    if (a.scale != 1.0f)
      for (int64_t i = 0; i < a.k; ++i) y[i] *= a.scale;
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
