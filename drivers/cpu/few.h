// What: products of quantised weights with few rows: the weights go from memory through registers once, and the rows' sums
//     stay in registers. Where there are registers of 512 bits two tiles share them, and more rows fit.
// Invariant: the row contract (linear.cc).
// Interface: Tiles, tiles_few; kFewRows.
#pragma once

#include "activations.h"
#include "codes.h"

namespace llmos {
namespace LLMOS_ISA {

template <int C>
constexpr int kRowsTogether = !kVnni ? 4 : C == 2 ? 16 : 8;  // rows whose sums fit in registers
constexpr int64_t kFewRows = kVnni ? 64 : 4;     // with more, widening the weights to bytes pays (many.h)

// One block of one activation row against one tile or two: y += the block's terms, in the order of the row contract.
template <int F, class Block>
LLMOS_INLINE typename Block::Floats block_terms(const typename Block::Bytes u[8], const typename Block::Floats scale[2],
                                                typename Block::Floats minimum, const ActBlock& x,
                                                typename Block::Floats y) {
  const auto sx = Block::set1(x.scale);
  const auto group = [&](int j) { return Block::repeat4(x.q + 4 * j); };
  if constexpr (F == kQ8) {
    auto acc = acc8_start(Block::repeat4(x.whole));
    for (int j = 0; j < 8; ++j) acc = acc8_dot(acc, u[j], group(j));
    return fma(acc8_sum(acc), mul(scale[0], sx), y);
  } else if constexpr (F == kQ6) {
    const auto whole = Block::repeat4(x.whole), first = Block::repeat4(x.first_half);
    auto a = acc_offset(first, code_offset(F)), b = acc_offset(sub_i16(whole, first), code_offset(F));
    for (int j = 0; j < 4; ++j) {
      a = acc_dot(a, u[j], group(j));
      b = acc_dot(b, u[j + 4], group(j + 4));
    }
    y = fma(acc_sum(a), mul(scale[0], sx), y);
    return fma(acc_sum(b), mul(scale[1], sx), y);
  } else {
    // Five-bit codes need an offset to stay in 16 bits; where the format has a minimum it is given back here.
    constexpr bool given_back = bits(F) == 5 && has_minimum(F);
    constexpr int offset = given_back ? 16 : code_offset(F);
    auto acc = offset ? acc_offset(Block::repeat4(x.whole), offset) : Block::acc_zero();
    for (int j = 0; j < 8; ++j) acc = acc_dot(acc, u[j], group(j));
    auto dot = acc_sum(acc);
    if constexpr (given_back) dot = add(dot, Block::set1(16.0f * static_cast<float>(x.whole[0] + x.whole[1])));
    y = fma(dot, mul(scale[0], sx), y);
    if constexpr (has_minimum(F)) y = fma(minimum, Block::set1(x.sum), y);
    return y;
  }
}

// C tiles of one length; those that come next lie `step` bytes behind them.
template <int C>
struct Tiles {
  const uint8_t* at[C];
  int64_t bytes, step;
};

inline Narrow block_of(int format, const Tiles<1>& w, int64_t b) { return {place(format, w.at[0], b)}; }

// The processor foresees one stream of memory.
inline void fetch_ahead(const Tiles<1>&, const Narrow& p, int64_t, int64_t) { p.prefetch_ahead(4096); }

#if LLMOS_VNNI
inline Wide block_of(int format, const Tiles<2>& w, int64_t b) {
  return {{place(format, w.at[0], b)}, {place(format, w.at[1], b)}};
}

// Of two it foresees neither: the next two tiles are fetched one after the other, as they lie, while these are computed.
inline void fetch_ahead(const Tiles<2>& w, const Wide&, int64_t b, int64_t blocks) {
  const int64_t bytes = 2 * w.bytes / blocks, at = b * bytes;
  const uint8_t* from = w.step + (at < w.bytes ? w.at[0] + at : w.at[1] + (at - w.bytes));
  for (int64_t i = 0; i < bytes; i += 64) prefetch_far(from + i);
}
#endif

// out[r * stride .. + C * 8] of R rows. Inlined it would share its registers with what calls it, and spill.
template <int F, int R, int C>
__attribute__((noinline)) void rows_few(const Tiles<C>& w, int64_t blocks, bool centred, const ActBlock* x, float* out,
                                        int64_t stride) {
  using Block = decltype(block_of(F, w, 0));
  typename Block::Floats y[R], z[R];  // z: the terms of the centres
  for (int r = 0; r < R; ++r) y[r] = z[r] = Block::set1(0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    const Block p = block_of(F, w, b);
    typename Block::Bytes u[8];
    typename Block::Floats scale[2], minimum;
    fetch_ahead(w, p, b, blocks);
    unpack<F>(p, u);
    load_scales<F>(p, scale, &minimum);
    for (int r = 0; r < R; ++r) y[r] = block_terms<F, Block>(u, scale, minimum, x[r * blocks + b], y[r]);
    if (!centred) continue;
    const auto total = weight_sums<F, Block>(u, scale);
    for (int r = 0; r < R; ++r) z[r] = fma(total, Block::set1(x[r * blocks + b].centre), z[r]);
  }
  for (int r = 0; r < R; ++r) store(out + r * stride, centred ? add(y[r], z[r]) : y[r]);
}

// The first of the rows, at most R of them.
template <int F, int R, int C>
inline void first_rows(int64_t rows, const Tiles<C>& w, int64_t blocks, bool centred, const ActBlock* x, float* out,
                       int64_t stride) {
  if constexpr (R > 1) {
    if (rows < R) return first_rows<F, R - 1>(rows, w, blocks, centred, x, out, stride);
  }
  rows_few<F, R>(w, blocks, centred, x, out, stride);
}

// All of them, x[rows][blocks].
template <int F, int C>
inline void all_rows(int64_t rows, const Tiles<C>& w, int64_t blocks, bool centred, const ActBlock* x, float* out,
                     int64_t stride) {
  constexpr int most = kRowsTogether<C>;
  for (; rows > 0; rows -= most, x += most * blocks, out += most * stride)
    first_rows<F, most>(rows, w, blocks, centred, x, out, stride);
}

// out[rows][C * 8]: C tiles against x[rows][blocks].
template <int F, int C>
void tiles_few(int64_t rows, const Tiles<C>& w, int64_t blocks, bool centred, const ActBlock* x, float* out) {
  if constexpr (kVnni || C == 1) {
    all_rows<F>(rows, w, blocks, centred, x, out, C * 8);
  } else {
    for (int c = 0; c < C; ++c)
      all_rows<F>(rows, Tiles<1>{{w.at[c]}, w.bytes, w.step}, blocks, centred, x, out + 8 * c, C * 8);
  }
}

}  // namespace LLMOS_ISA
}  // namespace llmos
